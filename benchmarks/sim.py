"""Speed of the simulator on one core: shipped scenarios under several policies, then fleets beside SimPy, then growth.

Both forms of the same kernels are timed: plain Python, and machine code where numba is installed. With
`SKYSHORE_BENCH_BEFORE` set to a checkout of an earlier commit, that commit's simulator takes turns with this one on the
same scenarios, each in a process of its own (`benchmarks.sim_scenarios`).

SimPy's model is a bare queue: no links, no energy, no deadlines, no scheduler.
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
from benchmarks.sim_scale import forms, scale, simulate
from benchmarks.sim_scenarios import scenarios
from skyshore.domain.task import TaskKind
from skyshore.rules.kernel import can_compile

REPEATS = 5
SERVERS = 8
LOAD = 0.8
QUEUE_REQUESTS = 50_000
FLEET_REQUESTS = {"plain": 5_000, "compiled": 100_000}
SIMPY = "simpy"
CASES = (
    ("least_loaded", TaskKind.VIDEO_DETECT, Aim(150_000, "at_least")),
    ("cs_ucb", TaskKind.VIDEO_DETECT, Aim(40_000, "at_least")),
    ("skyshore", TaskKind.VIDEO_DETECT, Aim(25_000, "at_least")),
    ("least_loaded", TaskKind.LLM, Aim(10_000, "at_least")),
)


def run(*, quick: bool = False) -> BenchResult:
    """Alternate forms and SimPy; CPU seconds, so that other processes on the core count less. `quick`: one repeat."""
    repeats = 1 if quick else REPEATS
    missing = []
    if not util.find_spec(SIMPY):
        missing.append("simpy is not installed: pip install 'simpy>=4.1,<5'")
    if not can_compile():
        missing.append("numba is not installed: pip install 'skyshore[sim]'")
    theirs = [_rate(partial(_simpy_shortest_queue, _Work.drawn(repeat)), QUEUE_REQUESTS) for repeat in range(repeats)]
    results = [] if quick else scenarios(repeats, missing)
    for case in CASES:
        results += _fleets(*case, repeats, theirs if util.find_spec(SIMPY) else [])
    results += scale(quick=quick)
    settings: dict[str, str | int | float | bool | None] = {
        "servers": SERVERS,
        "load": LOAD,
        "queue_requests": QUEUE_REQUESTS,
        "plain_requests": FLEET_REQUESTS["plain"],
        "compiled_requests": FLEET_REQUESTS["compiled"],
        "quick": quick,
    }
    return BenchResult("sim", settings, repeats, tuple(results), tuple(missing))


def _fleets(policy: str, kind: TaskKind, aim: Aim, repeats: int, theirs: list[float]) -> list[Metric]:
    """A whole fleet of eight in each form, by turns. The faster form has to meet the aim."""
    rates: dict[str, list[float]] = {form: [] for form in forms()}
    for form in forms():
        simulate(form, policy, kind, 0, 100)  # makes or loads the machine code
    for repeat in range(repeats):
        for form, samples in rates.items():
            requests = FLEET_REQUESTS[form]
            samples.append(_rate(partial(simulate, form, policy, kind, repeat, requests), requests))
    level = "token level" if kind is TaskKind.LLM else "request level"
    return [
        Metric.of_repeats(
            f"{form}: fleet of 8, {level}, {policy}",
            samples,
            "requests/s",
            against=f"simpy {metadata.version(SIMPY)}, bare queues" if theirs else "",
            against_samples=theirs,
            aim=aim if form == forms()[-1] else None,
        )
        for form, samples in rates.items()
    ]


@dataclass(frozen=True, slots=True)
class _Work:
    """Arrivals and service times."""

    times: list[float]
    seconds: list[float]

    @classmethod
    def drawn(cls, seed: int) -> _Work:
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.exponential(1 / (LOAD * SERVERS), QUEUE_REQUESTS))
        return cls(times.tolist(), rng.exponential(1.0, QUEUE_REQUESTS).tolist())


def _rate(work: Callable[[], None], requests: int) -> float:
    start_s = time.process_time()
    work()
    return requests / max(time.process_time() - start_s, 1e-9)


def _simpy_shortest_queue(work: _Work) -> None:
    if not util.find_spec(SIMPY):
        return
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
