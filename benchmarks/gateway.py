"""What gateway, profiler, scheduler and dispatch add to a request, beside two other gateways.

Added latency is a target's latency less that of the server behind it, called directly by the same load generator at the
same concurrency in the same repeat. Ours adds two services and the state store to what a plain proxy does; a Rust proxy
will be ahead on raw overhead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gateway_load import LoadFigures
from benchmarks.gateway_targets import (
    KEY,
    PEERS,
    START_PEER,
    Processes,
    Target,
    install_peers,
    processes,
    start_own_system,
    start_upstream,
    why_missing,
)
from benchmarks.result import Aim, BenchResult, Metric
from skyshore.report.host import Setting

REPEATS = 5
CONCURRENCY = (1, 16, 64)
SECONDS = 2.0
IDLE_S = 5.0
AIMS = {
    ("added_p50_ms", 1): Aim(2.5),
    ("added_p99_ms", 1): Aim(8.0),
    ("requests_per_s", 16): Aim(1200, "at_least"),
    ("requests_per_s", 64): Aim(1800, "at_least"),
}
RESIDENT_AIM_MB = Aim(150)
IDLE_AIM_PERCENT = Aim(5)
BEHIND = {"gateway": "node"}
"""The server behind a target; of the peers it is the upstream."""

Samples = dict[tuple[str, int], list[LoadFigures]]
"""By target and concurrency, one entry a repeat."""


def run(repeats: int = REPEATS, seconds: float = SECONDS, *, install: bool = False) -> BenchResult:
    """Run the bench; `install` gets missing peers first."""
    missing = install_peers() if install else []
    with processes() as group:
        targets = start_own_system(group)
        targets.append(start_upstream(group))
        present, absent = _start_peers(group, targets[-1])
        idle = _idle_cpu_percent(group)
        samples = _measure([*targets, *present], repeats, seconds)
        metrics = [*_latency_metrics(samples, present), *_resident_metrics(group), idle]
    settings: dict[str, Setting] = {
        "seconds": seconds,
        "streamed": False,
        "engine": "emulated (instant)",
        "concurrency": str(CONCURRENCY),
    }
    return BenchResult("gateway", settings, repeats, tuple(metrics), (*missing, *absent))


def _start_peers(group: Processes, upstream: Target) -> tuple[list[Target], list[str]]:
    present, absent = [], []
    for peer in PEERS:
        reason = why_missing(peer)
        if not reason:
            try:
                present.append(START_PEER[peer](group, upstream))
            except RuntimeError as error:
                reason = str(error)
        if reason:
            absent.append(reason)
    return present, absent


def _measure(targets: Sequence[Target], repeats: int, seconds: float) -> Samples:
    samples: Samples = defaultdict(list)
    for repeat in range(repeats):
        for concurrency in CONCURRENCY:
            # Each target comes first, second, … in turn, so that a drift of the machine meets all of them.
            turn = repeat % len(targets)
            for target in (*targets[turn:], *targets[:turn]):
                samples[target.name, concurrency].append(_load(target, concurrency, seconds))
    return samples


def _load(target: Target, concurrency: int, seconds: float) -> LoadFigures:
    argv = (
        *(sys.executable, "-m", "benchmarks.gateway_load", target.url, "--model", target.model, "--key", KEY),
        *("--concurrency", str(concurrency), "--seconds", str(seconds)),
    )
    done = subprocess.run(argv, capture_output=True, check=False, cwd=Path(__file__).resolve().parents[1])
    if done.returncode:
        raise RuntimeError(f"load on {target.name} failed:\n{done.stderr.decode()[-2000:]}")
    figures = LoadFigures(**json.loads(done.stdout))
    if figures.errors:
        raise RuntimeError(f"{target.name} answered {figures.errors} of {figures.requests} requests badly")
    return figures


def _latency_metrics(samples: Samples, peers: Sequence[Target]) -> list[Metric]:
    metrics = []
    for concurrency in CONCURRENCY:
        for name in ("added_p50_ms", "added_p99_ms", "requests_per_s"):
            for peer in [target.name for target in peers] or [""]:
                metrics.append(
                    Metric.of_repeats(
                        f"{name}@{concurrency}",
                        _series(samples, "gateway", concurrency, name),
                        "1/s" if name == "requests_per_s" else "ms",
                        against=PEERS.get(peer, ""),
                        against_samples=_series(samples, peer, concurrency, name) if peer else (),
                        aim=AIMS.get((name, concurrency)),
                    )
                )
    return metrics


def _series(samples: Samples, target: str, concurrency: int, name: str) -> list[float]:
    ours = samples[target, concurrency]
    if name == "requests_per_s":
        return [figures.requests_per_s for figures in ours]
    behind = samples[BEHIND.get(target, "upstream"), concurrency]
    field = name.removeprefix("added_")
    return [getattr(each, field) - getattr(bare, field) for each, bare in zip(ours, behind, strict=True)]


def _resident_metrics(group: Processes) -> list[Metric]:
    return [
        Metric(f"resident_mb:{name}", _resident_mb(group.started[name].pid), "MB", aim=RESIDENT_AIM_MB)
        for name in ("gateway", "profiler", "scheduler")
    ]


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} is gone")


def _idle_cpu_percent(group: Processes) -> Metric:
    """CPU time of all our processes while nobody asks anything, in percent of one core."""
    pids = [group.started[name].pid for name in ("valkey", "profiler", "scheduler", "node", "gateway")]
    before_s, began_s = sum(map(_cpu_s, pids)), time.monotonic()
    time.sleep(IDLE_S)
    used_s = sum(map(_cpu_s, pids)) - before_s
    percent = 100 * used_s / (time.monotonic() - began_s)
    return Metric("idle_cpu_percent", percent, "% of a core", aim=IDLE_AIM_PERCENT, note=f"over {IDLE_S:g} s, one node")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # clock ticks; USER_HZ is 100 on every Linux


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--install-peers", action="store_true", help=f"install {', '.join(PEERS.values())}")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    result = run(arguments.repeats, arguments.seconds, install=arguments.install_peers)
    result.show(as_json=arguments.json)
