"""How the simulator's cost grows: with requests, with nodes, and in memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.result import Aim, Metric
from simulator.build import build
from simulator.records import REQUEST
from simulator.requests import record_values
from simulator.simulation import BATCH, Simulation
from skyshore.domain.task import TaskKind
from skyshore.report.distribution import LogHistogram
from skyshore.rules.kernel import can_compile
from skyshore.rules.records import Records, put, rows
from skyshore.scenario import Scenario, read_scenario
from skyshore.workload.arrival import Arrival

REQUESTS = {"plain": (1_000, 10_000, 100_000), "compiled": (1_000, 10_000, 100_000, 1_000_000, 10_000_000)}
NODES = (8, 100, 1_000, 10_000)
REQUESTS_PER_SIZE = 2_000
MOST_PLAIN_NODES = 100
"""Plain Python looks at every arm one by one: a larger fleet takes minutes."""
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


def forms() -> tuple[str, ...]:
    """The forms of the kernels that this machine can run."""
    return ("plain", "compiled") if can_compile() else ("plain",)


def scale(*, quick: bool = False) -> list[Metric]:
    """CPU time per request as runs and fleets grow, and what a tenfold run adds to the most memory in use."""
    metrics = []
    for form in forms():
        peak_mb, sizes = 0.0, REQUESTS[form][:2] if quick else REQUESTS[form]
        for requests in sizes:
            micros = _micros(form, 8, requests)
            added_mb, peak_mb = _peak_mb() - peak_mb, _peak_mb()
            note = "" if requests == sizes[0] else f"{added_mb:.0f} MB more at the peak than {requests // 10} requests"
            metrics.append(Metric(f"{form}: time a request in a run of {requests}", micros, "µs", note=note))
        for nodes in NODES[:2] if quick else NODES:
            if form == "plain" and nodes > MOST_PLAIN_NODES:
                continue
            metrics += _with_nodes(form, nodes)
    return metrics


def _with_nodes(form: str, nodes: int) -> list[Metric]:
    """Time of a short run on so many nodes: all of it, and without the building of the fleet."""
    start_s = time.process_time()
    _simulation(form, "least_loaded", 0, nodes)
    built_s = time.process_time() - start_s
    micros, aim = _micros(form, nodes, REQUESTS_PER_SIZE), Aim(300.0) if nodes == NODES[-1] else None
    run_micros, name = micros - built_s / REQUESTS_PER_SIZE * 1e6, f"{form}: time a request with {nodes} nodes"
    note = (
        f"two arms a node; load grows with the fleet; building it takes {built_s:.2f} s of {REQUESTS_PER_SIZE} requests"
    )
    return [
        Metric(name, micros, "µs", aim=aim, note=note),
        Metric(f"{name}, built before", run_micros, "µs", aim=aim),
    ]


def simulate(form: str, policy: str, kind: TaskKind, seed: int, requests: int, *, nodes: int = 8) -> None:
    """Simulate so many requests, which come as records; the ends of tasks are counted as records."""
    arrays, latency, ended = form == "compiled", LogHistogram(), 0
    run = _simulation(form, policy, seed, nodes)
    for batch in run.run_batches(_requests(kind, seed, requests, nodes, arrays=arrays)):
        ended += len(batch)
        if arrays:
            latency.add(batch["latency_s"][batch["status"] == 0])
    assert ended == requests, "every request ends in one outcome"


def _simulation(form: str, policy: str, seed: int, nodes: int) -> Simulation:
    return build(_scenario(policy, seed, nodes), Path(), arrays=form == "compiled")


def _scenario(policy: str, seed: int, nodes: int) -> Scenario:
    return read_scenario(SCENARIO.format(nodes=nodes)).model_copy(update={"policy": policy, "seed": seed})


def _micros(form: str, nodes: int, requests: int) -> float:
    """The building of the fleet included."""
    start_s = time.process_time()
    simulate(form, "least_loaded", TaskKind.VIDEO_DETECT, 0, requests, nodes=nodes)
    return (time.process_time() - start_s) / requests * 1e6


def _requests(
    kind: TaskKind, seed: int, requests: int, nodes: int, *, arrays: bool
) -> Iterator[tuple[Records, list[str]]]:
    """Equal requests, batch by batch, at about 60 % of what such nodes can do."""
    rng = np.random.default_rng([seed, 7])
    gap_s, at_s = 8 / nodes / (60.0 if kind is TaskKind.LLM else 220.0), 0.0
    if kind is TaskKind.LLM:
        sample = Arrival(0.0, "r", kind, prompt_tokens=128, output_tokens=128)
    else:
        sample = Arrival(0.0, "r", kind, frames=10, fps=5.0)
    values = record_values(sample, 0, 0.003, 0.0)
    for first in range(0, requests, BATCH):
        count = min(BATCH, requests - first)
        times_s = at_s + np.cumsum(gap_s * rng.standard_exponential(count))
        at_s = float(times_s[-1])
        if arrays:
            records = np.full(count, np.array(values, dtype=REQUEST))
            records["at_s"] = times_s
        else:
            records = rows(REQUEST, count, arrays=False)
            for record, time_s in zip(records, times_s.tolist(), strict=True):
                put(record, dict(zip(REQUEST.names or (), values, strict=True)))
                record.at_s = time_s
        yield records, [f"r{number}" for number in range(first, first + count)]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
