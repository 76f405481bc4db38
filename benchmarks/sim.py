"""Speed of the simulator on one core: the engine alone beside SimPy, then fleets through the live scheduler's core.

SimPy's model is a bare queue: no links, no energy, no deadlines, no scheduler. What a whole fleet costs beside it is
printed too. Then how cost and memory grow with requests and with nodes (`benchmarks.sim_scale`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from typing import Any

import numpy as np

from benchmarks.result import Aim, BenchResult, Metric
from benchmarks.sim_scale import HAS_NUMBA, compiled_fleet, fleet, scale
from simulator.servers import VideoServer
from simulator.timeline import Timeline
from skyshore.domain.task import TaskKind
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.nodemodel.video import Segment

REPEATS = 5
SERVERS = 8
LOAD = 0.8
QUEUE_REQUESTS = 50_000
FLEET_REQUESTS = 10_000
COMPILED_REQUESTS = 100_000
SIMPY = "simpy"
CASES = (
    ("least_loaded", TaskKind.VIDEO_DETECT, Aim(150_000, "at_least")),
    ("cs_ucb", TaskKind.VIDEO_DETECT, Aim(40_000, "at_least")),
    ("least_loaded", TaskKind.LLM, Aim(10_000, "at_least")),
)


def run(*, quick: bool = False) -> BenchResult:
    """Alternate engines and SimPy; CPU seconds, so that other processes on the core count less. `quick`: one repeat."""
    repeats = 1 if quick else REPEATS
    missing = []
    if not util.find_spec(SIMPY):
        missing.append("simpy is not installed: pip install 'simpy>=4.1,<5'")
    if not HAS_NUMBA:
        missing.append("numba is not installed: pip install 'skyshore[sim]'")
    ours: list[float] = []
    theirs: list[float] = []
    for repeat in range(repeats):
        work = _Work.drawn(repeat)
        ours.append(_rate(partial(_shortest_queue, work), QUEUE_REQUESTS))
        if util.find_spec(SIMPY):
            theirs.append(_rate(partial(_simpy_shortest_queue, work), QUEUE_REQUESTS))
    results = [
        Metric.of_repeats(
            "queueing engine, join the shortest of 8 queues",
            ours,
            "requests/s",
            against=f"simpy {metadata.version(SIMPY)}, the same queues" if theirs else "",
            against_samples=theirs,
        )
    ]
    if HAS_NUMBA:
        start_s = time.process_time()
        compiled_fleet("cs_ucb", TaskKind.LLM, 0, 10)
        seconds = time.process_time() - start_s
        note = "once for each version of the sources, then kept: well under a second where it was made before"
        results.append(Metric("compiled: making or loading the machine code", seconds, "s", note=note))
    for case in CASES:
        results += _fleets(*case, repeats, theirs)
    results += scale(quick=quick)
    settings: dict[str, str | int | float | bool | None] = {
        "servers": SERVERS,
        "load": LOAD,
        "requests": QUEUE_REQUESTS,
        "fleet_requests": FLEET_REQUESTS,
        "compiled_requests": COMPILED_REQUESTS,
        "quick": quick,
    }
    return BenchResult("sim", settings, repeats, tuple(results), tuple(missing))


def _fleets(policy: str, kind: TaskKind, aim: Aim, repeats: int, theirs: list[float]) -> list[Metric]:
    """A whole fleet of eight on each engine, alternating."""
    rates: dict[str, list[float]] = {"plain": [], "compiled": []}
    for repeat in range(repeats):
        rates["plain"].append(_rate(partial(fleet, policy, kind, repeat, FLEET_REQUESTS), FLEET_REQUESTS))
        if HAS_NUMBA:
            simulate = partial(compiled_fleet, policy, kind, repeat, COMPILED_REQUESTS)
            rates["compiled"].append(_rate(simulate, COMPILED_REQUESTS))
    level = "token level" if kind is TaskKind.LLM else "request level"
    # An aim is one for the simulator, so the faster engine has to meet it.
    judged = "compiled" if HAS_NUMBA else "plain"
    return [
        Metric.of_repeats(
            f"{engine}: fleet of 8, {level}, {policy}",
            samples,
            "requests/s",
            against="simpy, bare queues" if theirs else "",
            against_samples=theirs,
            aim=aim if engine == judged else None,
        )
        for engine, samples in rates.items()
        if samples
    ]


@dataclass(frozen=True, slots=True)
class _Work:
    """The same arrivals and service times for both engines."""

    times: list[float]
    seconds: list[float]

    @classmethod
    def drawn(cls, seed: int) -> _Work:
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.exponential(1 / (LOAD * SERVERS), QUEUE_REQUESTS))
        return cls(times.tolist(), rng.exponential(1.0, QUEUE_REQUESTS).tolist())


def _rate(simulate: Callable[[], None], requests: int) -> float:
    start_s = time.process_time()
    simulate()
    return requests / (time.process_time() - start_s)


def _shortest_queue(work: _Work) -> None:
    timeline = Timeline()
    speed = VideoSpeed("m", "modelled:bench", slots=1, queue=QUEUE_REQUESTS)
    backlog = [0] * SERVERS

    def server(number: int) -> VideoServer:
        def done(_: Segment) -> None:
            backlog[number] -= 1

        return VideoServer(speed, timeline, done)

    servers = [server(number) for number in range(SERVERS)]

    def arrive(index: int) -> None:
        shortest = backlog.index(min(backlog))
        backlog[shortest] += 1
        servers[shortest].offer(Segment("", work.seconds[index], work.times[index]))
        if index + 1 < QUEUE_REQUESTS:
            timeline.at(work.times[index + 1], arrive, index + 1)

    timeline.at(work.times[0], arrive, 0)
    timeline.run()


def _simpy_shortest_queue(work: _Work) -> None:
    import simpy  # noqa: PLC0415 - a peer, present in some environments only

    env = simpy.Environment()
    servers = [simpy.Resource(env) for _ in range(SERVERS)]

    def request(index: int) -> Generator[Any, Any, None]:
        shortest = min(servers, key=lambda server: server.count + len(server.queue))
        with shortest.request() as turn:
            yield turn
            yield env.timeout(work.seconds[index])

    def arrivals() -> Generator[Any, Any, None]:
        for index, at in enumerate(work.times):
            yield env.timeout(at - env.now)
            env.process(request(index))

    env.process(arrivals())
    env.run()
