"""How the simulator's cost grows: with requests, with nodes, and in memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.result import Metric
from simulator.build import build
from simulator.compiled.layout import REQUEST
from simulator.garbage import rare_collections
from skyshore.domain.task import TaskKind
from skyshore.report.distribution import LogHistogram
from skyshore.scenario import Scenario, read_scenario
from skyshore.workload.arrival import Arrival

if TYPE_CHECKING:
    from simulator.compiled.engine import Requests

HAS_NUMBA = util.find_spec("numba") is not None
REQUESTS = (1_000, 10_000, 100_000)
COMPILED_REQUESTS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
NODES = (8, 100, 1_000, 10_000)
REQUESTS_PER_SIZE = 2_000
SCENARIO = """
name = "bench"
duration_s = 1e6
[[nodes]]
id = "n"
tier = "edge"
count = {nodes}
profile = "a100"
models = ["llama3-8b", "nanodet"]
[[links]]
nodes = "n"
up = {{ rate_mbit_s = 1000, delay_ms = 2 }}
down = {{ rate_mbit_s = 1000, delay_ms = 2 }}
[[workload.llm]]
rate_per_s = 1
"""


def scale(*, quick: bool = False) -> list[Metric]:
    """CPU time per request as runs and fleets grow, and what a tenfold run adds to the most memory in use."""
    metrics = []
    for engine, simulate, sizes in (("plain", fleet, REQUESTS), ("compiled", compiled_fleet, COMPILED_REQUESTS)):
        if engine == "compiled" and not HAS_NUMBA:
            continue
        peak_mb = 0.0
        for requests in sizes[:2] if quick else sizes:
            micros = _micros(simulate, 8, requests)
            added_mb, peak_mb = _peak_mb() - peak_mb, _peak_mb()
            note = "" if requests == sizes[0] else f"{added_mb:.0f} MB more at the peak than {requests // 10} requests"
            metrics.append(Metric(f"{engine}: time a request in a run of {requests}", micros, "µs", note=note))
        for nodes in NODES[:2] if quick else NODES:
            micros = _micros(simulate, nodes, REQUESTS_PER_SIZE)
            note = "load grows with the fleet"
            metrics.append(Metric(f"{engine}: time a request with {nodes} nodes", micros, "µs", note=note))
    return metrics


def fleet(policy: str, kind: TaskKind, seed: int, requests: int, nodes: int = 8) -> None:
    """Simulate so many requests from the first to the last outcome, on the plain engine."""
    scenario = _scenario(policy, seed, nodes)
    latencies_s: list[float] = []
    simulation = build(scenario, Path(), lambda outcome: latencies_s.append(outcome.latency_s))
    with rare_collections():
        simulation.cluster.start(_arrivals(kind, seed, requests, nodes))
        simulation.timeline.run()
    assert len(latencies_s) == requests, "every request ends in one outcome"


def compiled_fleet(policy: str, kind: TaskKind, seed: int, requests: int, nodes: int = 8) -> None:
    """The same on the compiled engine; requests come as columns, ends are counted as columns."""
    from simulator.compiled.engine import CompiledRun  # noqa: PLC0415 (numba is an extra)

    run, latency, ended = CompiledRun(build(_scenario(policy, seed, nodes), Path(), lambda _: None)), LogHistogram(), 0
    with rare_collections():
        for batch in run.batches(_columns(kind, seed, requests, nodes)):
            ended += len(batch)
            latency.add(batch["latency_s"][batch["status"] == 0])
    assert ended == requests, "every request ends in one outcome"


def _scenario(policy: str, seed: int, nodes: int) -> Scenario:
    return read_scenario(SCENARIO.format(nodes=nodes)).model_copy(update={"policy": policy, "seed": seed})


def _micros(simulate: Callable[..., None], nodes: int, requests: int) -> float:
    """The building of the fleet included."""
    start_s = time.process_time()
    simulate("least_loaded", TaskKind.VIDEO_DETECT, 0, requests, nodes)
    return (time.process_time() - start_s) / requests * 1e6


def _gap_s(kind: TaskKind, nodes: int) -> float:
    """Mean time between requests: about 60 % of what such nodes can do."""
    return 8 / nodes / (60.0 if kind is TaskKind.LLM else 220.0)


def _columns(kind: TaskKind, seed: int, requests: int, nodes: int) -> Iterator[Requests]:
    """The requests of `_arrivals` as the kernel takes them, batch by batch."""
    from simulator.compiled.engine import BATCH, Requests, record_of  # noqa: PLC0415 (numba is an extra)

    rng = np.random.default_rng([seed, 7])
    (sample,) = _arrivals(kind, seed, 1, nodes)
    at_s = 0.0
    for first in range(0, requests, BATCH):
        count = min(BATCH, requests - first)
        records = np.full(count, np.array(record_of(sample, 0), dtype=REQUEST))
        records["at_s"] = at_s + np.cumsum(_gap_s(kind, nodes) * rng.standard_exponential(count))
        at_s = float(records["at_s"][-1])
        yield Requests(records, [f"r{number}" for number in range(first, first + count)])


def _arrivals(kind: TaskKind, seed: int, requests: int, nodes: int) -> Iterator[Arrival]:
    """One by one, so that a long run is never in memory as a whole."""
    rng = np.random.default_rng([seed, 7])
    gap_s = _gap_s(kind, nodes)
    at_s = 0.0
    for number in range(requests):
        at_s += gap_s * rng.standard_exponential()
        if kind is TaskKind.LLM:
            yield Arrival(at_s, f"r{number}", kind, prompt_tokens=128, output_tokens=128)
        else:
            yield Arrival(at_s, f"r{number}", kind, frames=10, fps=5.0)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
