"""How the simulator's cost grows: with requests, with nodes, and in memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.result import Metric
from simulator.build import build
from simulator.garbage import rare_collections
from simulator.tally import Tally
from skyshore.domain.task import TaskKind
from skyshore.scenario import read_scenario
from skyshore.workload.arrival import Arrival

REQUESTS = (1_000, 10_000, 100_000)
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


def scale() -> list[Metric]:
    """CPU time per request as runs and fleets grow, and what a tenfold run adds to the most memory in use."""
    metrics = []
    peak_mb = 0.0
    for requests in REQUESTS:
        micros = _micros(8, requests)
        added_mb, peak_mb = _peak_mb() - peak_mb, _peak_mb()
        note = "" if requests == REQUESTS[0] else f"{added_mb:.0f} MB more at the peak than {requests // 10} requests"
        metrics.append(Metric(f"time a request in a run of {requests}", micros, "µs", note=note))
    for nodes in NODES:
        micros = _micros(nodes, REQUESTS_PER_SIZE)
        metrics.append(Metric(f"time a request with {nodes} nodes", micros, "µs", note="load grows with the fleet"))
    return metrics


def fleet(policy: str, kind: TaskKind, seed: int, requests: int, nodes: int = 8) -> None:
    """Simulate so many requests from the first to the last outcome."""
    scenario = read_scenario(SCENARIO.format(nodes=nodes)).model_copy(update={"policy": policy, "seed": seed})
    tally = Tally({node_id: node.tier for node in scenario.nodes for node_id in node.ids})
    simulation = build(scenario, Path(), tally.add)
    with rare_collections():
        simulation.cluster.start(_arrivals(kind, seed, requests, nodes))
        simulation.timeline.run()
    assert tally.all.requests == requests, "every request ends in one outcome"


def _micros(nodes: int, requests: int) -> float:
    """The building of the fleet included."""
    start_s = time.process_time()
    fleet("least_loaded", TaskKind.VIDEO_DETECT, 0, requests, nodes)
    return (time.process_time() - start_s) / requests * 1e6


def _arrivals(kind: TaskKind, seed: int, requests: int, nodes: int) -> Iterator[Arrival]:
    """One by one, so that a long run is never in memory as a whole: about 60 % of what such nodes can do."""
    rng = np.random.default_rng([seed, 7])
    gap_s = 8 / nodes / (60.0 if kind is TaskKind.LLM else 220.0)
    at_s = 0.0
    for number in range(requests):
        at_s += gap_s * rng.standard_exponential()
        if kind is TaskKind.LLM:
            yield Arrival(at_s, f"r{number}", kind, prompt_tokens=128, output_tokens=128)
        else:
            yield Arrival(at_s, f"r{number}", kind, frames=10, fps=5.0)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
