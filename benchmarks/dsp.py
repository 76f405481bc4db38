"""DSP beside its rivals: bytes, time on shaped links, CPU, whole forwards, break-even, ONNX stages; interleaved."""

from __future__ import annotations

import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.dsp_fleet import MTU, RankFleet, fleet, why_no_namespaces
from benchmarks.dsp_prediction import predictions
from benchmarks.result import Aim, BenchResult, Metric
from cloud_node.classify.export import export_stages
from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.baselines.methods import METHODS
from cloud_node.dsp.cost import break_even_bytes_per_s, pair_flops_per_token

REPEATS = 5
BATCH, FRAMES, PATCHES, CHANNELS, HEADS = 1, 16, 256, 256, 8
MODEL: dict[str, Any] = {"shape": [BATCH, FRAMES, PATCHES, CHANNELS], "channels": CHANNELS, "heads": HEADS, "pairs": 1}
"""Random weights: good for time and bytes, and for nothing else."""
WHOLE_BYTES = BATCH * FRAMES * PATCHES * CHANNELS * 4
RATES_MBIT = (100, 1000)
BREAK_EVEN_MBIT = (30, 60, 120, 240, 480)
MANY_REPEATS = 15
"""For CPU shares and break-even, where a few per cent decide."""
RIVALS = [name for name in METHODS if name != "dsp"]

Samples = dict[tuple[Any, ...], list[list[dict[str, Any]]]]
"""Answers of the ranks by case and repeat."""


def run() -> BenchResult:
    """Run everything this host allows; what it does not is listed as missing."""
    reason = why_no_namespaces()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, fleet(4, namespaces=not reason) as ranks:
        paths = _export(Path(folder))
        results = [*_accuracy(ranks), *_open_link(ranks), *_stages(ranks, paths)]
        if not reason:
            for rate in RATES_MBIT:
                results += _shaped_link(ranks, rate)
            results += _break_even(ranks)
    results += predictions()
    missing = ["wall speed-up beyond 2 ranks: this bench does not know that the host has a core for each"]
    if reason:
        missing.append(f"shaped links: {reason}")
    return BenchResult("dsp", {**_settings(), "mtu": int(MTU)}, REPEATS, tuple(results), tuple(missing))


def _settings() -> dict[str, str | int | float | bool | None]:
    return {
        "shape": f"B{BATCH} T{FRAMES} S{PATCHES} C{CHANNELS}, {HEADS} heads, 1 block pair, fp32",
        "activation_bytes": WHOLE_BYTES,
        "weights": "random",
        "threads_per_rank": 1,
        "torch": torch.__version__,
    }


def _repeat(ranks: RankFleet, cases: dict[tuple[Any, ...], dict[str, Any]], repeats: int = REPEATS) -> Samples:
    """Every case once per repeat, in a random order; the first round warms up and is dropped."""
    samples: Samples = defaultdict(list)
    order, shuffle = list(cases), random.Random(0).shuffle
    for repeat in range(repeats + 1):
        for key in order:
            answers = ranks.run({**MODEL, **cases[key]})
            if repeat > 0:
                samples[key].append(answers)
        shuffle(order)
    return samples


def _slowest(answers: Sequence[Sequence[dict[str, Any]]], field: str = "seconds") -> list[float]:
    """The slowest rank of each repeat."""
    return [max(float(answer[field]) for answer in group) for group in answers]


def _mean(answers: Sequence[Sequence[dict[str, Any]]], field: str) -> list[float]:
    """The mean over the ranks of each repeat."""
    return [sum(float(answer[field]) for answer in group) / len(group) for group in answers]


def _ratio(metric: str, ours: Sequence[float], theirs: Sequence[float], against: str, aim: Aim | None) -> Metric:
    """Median over repeats of ours / theirs, each pair from the same round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Metric.of_repeats(metric, ratios, "ratio", against=against, aim=aim)


# -------------------------------------------------------------------------------------------- answers and bytes


def _accuracy(ranks: RankFleet) -> list[Metric]:
    """How far each wire and each rival is from one process."""
    found = []
    for wire, limit in (("exact", 0.0), ("fp16", 1e-3), ("bf16", 1e-2), ("int8", 1e-2)):
        case = {**MODEL, "op": "accuracy", "method": "dsp", "wire": wire, "n": 2}
        error = max(answer["relative"] for answer in ranks.run(case))
        found.append(Metric(f"relative error of DSP, {wire} wire, N=2", error, "", aim=Aim(limit)))
    for name in RIVALS:
        error = max(answer["largest"] for answer in ranks.run({**MODEL, "op": "accuracy", "method": name, "n": 2}))
        found.append(Metric(f"largest error of {name}, N=2", error, "", aim=Aim(2e-5)))
    return found


def _bytes(samples: Samples, n: int, namespaces: bool) -> list[Metric]:
    found = []
    for name, method in METHODS.items():
        counted = {answer["payload_bytes"] for answer in samples["communicate", name, "p2p", n][0]}
        formula = int(method.per_pair(n) * WHOLE_BYTES)
        off = max(abs(count - formula) for count in counted)
        found.append(Metric(f"payload per rank of {name}, N={n}", counted.pop() / 2**20, "MiB"))
        found.append(Metric(f"payload minus formula of {name}, N={n}", off, "B", aim=Aim(0.0)))
        if namespaces:
            repeats = samples["communicate", name, "p2p", n]
            extra = [(r[0]["interface_bytes"] / r[0]["payload_bytes"] - 1) * 100 for r in repeats]
            found.append(Metric.of_repeats(f"interface bytes over payload of {name}, N={n}", extra, "%", aim=Aim(2.0)))
    return found


# -------------------------------------------------------------------------------------------- links


def _communications() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Exchanges without computation, of all methods over the same transport, and of some over the others."""
    transports = [(name, "p2p", "exact") for name in METHODS]
    transports += [("dsp", "p2p", "fp16"), ("dsp", "p2p", "int8")]
    transports += [("dsp", "gloo", "exact"), ("dsp", "p2p send-first", "exact"), ("ulysses", "gloo", "exact")]
    cases = {}
    for n in (2, 4):
        for name, carrier, wire in transports:
            key = ("communicate", name, carrier, n) if wire == "exact" else ("communicate", name, wire, n)
            cases[key] = {"op": "communicate", "method": name, "carrier": carrier, "wire": wire, "n": n}
    return cases


def _forwards() -> dict[tuple[Any, ...], dict[str, Any]]:
    cases: dict[tuple[Any, ...], dict[str, Any]] = {("forward", "one process"): {"method": "dsp", "n": 1}}
    cases |= {("forward", name): {"method": name, "n": 2} for name in METHODS}
    cases["forward", "dsp, 2 chunks"] = {"method": "dsp", "chunks": 2, "n": 2}
    cases |= {("forward", f"dsp, {wire}"): {"method": "dsp", "wire": wire, "n": 2} for wire in ("fp16", "int8")}
    return {key: {"op": "forward", **case} for key, case in cases.items()}


def _open_link(ranks: RankFleet) -> list[Metric]:
    """Unshaped: bytes, CPU shares and whole forwards."""
    samples = _repeat(ranks, {**_communications(), **_forwards()})
    found = [metric for n in (2, 4) for metric in _bytes(samples, n, ranks.network is not None)]
    found += _cpu_shares(ranks)
    return found + _forward_metrics(samples, "open link")


def _cpu_shares(ranks: RankFleet) -> list[Metric]:
    """Whether splitting the work makes more of it. A loop of its own: after other cases the caches are cold."""
    cases = {(n,): {"op": "forward", "method": "dsp", "n": n} for n in (1, 2, 4)}
    samples = _repeat(ranks, cases, MANY_REPEATS)
    alone = _mean(samples[1,], "cpu_seconds")
    found = []
    for n in (2, 4):
        shares = [cpu / one * n for cpu, one in zip(_mean(samples[n,], "cpu_seconds"), alone, strict=True)]
        name = f"CPU seconds per rank times N over one process, DSP, N={n}"
        found.append(Metric.of_repeats(name, shares, "ratio", aim=Aim(1.1)))
    return found


def _shaped_link(ranks: RankFleet, rate_mbit: int) -> list[Metric]:
    if ranks.network is None:
        return []
    ranks.network.shape(rate_mbit)
    samples = _repeat(ranks, {**_communications(), **_forwards()})
    where = f"{rate_mbit} Mbit/s"
    found = []
    for n in (2, 4):
        times = {key[1:3]: _slowest(samples[key]) for key in _communications() if key[3] == n}
        for (name, carrier), seconds in times.items():
            label = f"communication of {name} ({carrier}), {where}, N={n}"
            found.append(Metric.of_repeats(label, [s * 1e3 for s in seconds], "ms"))
        ours = times["dsp", "p2p"]
        for rival, limit in (("ulysses", 0.6), ("megatron", 0.15)):
            label = f"communication time of DSP over {rival}, {where}, N={n}"
            found.append(_ratio(label, ours, times[rival, "p2p"], f"{rival}, same transport", Aim(limit)))
        wire_s = float(METHODS["dsp"].per_pair(n)) * WHOLE_BYTES * 8 / (rate_mbit * 1e6)
        shares = [wire_s / seconds * 100 for seconds in ours]
        aim = Aim(90.0, "at_least") if n == 2 else None
        found.append(Metric.of_repeats(f"share of the link our transport fills, {where}, N={n}", shares, "%", aim=aim))
        label = f"switch time with receives first over gloo's all-to-all, {where}, N={n}"
        found.append(_ratio(label, ours, times["dsp", "gloo"], f"gloo of torch {torch.__version__}", None))
    return found + _forward_metrics(samples, where)


def _forward_metrics(samples: Samples, where: str) -> list[Metric]:
    times = {key[1]: _slowest(samples[key]) for key in _forwards()}
    found = []
    for name, seconds in times.items():
        against = "" if name == "one process" else "one process"
        theirs = [s * 1e3 for s in times["one process"]] if against else []
        label = f"one forward of {name}, {where}" + (", N=2" if against else "")
        found.append(
            Metric.of_repeats(label, [s * 1e3 for s in seconds], "ms", against=against, against_samples=theirs)
        )
    for name in ("dsp, 2 chunks", "dsp, fp16", "dsp, int8"):
        found.append(_ratio(f"time of {name} over plain dsp, {where}, N=2", times[name], times["dsp"], "dsp", None))
    return found


def _break_even(ranks: RankFleet) -> list[Metric]:
    """The link rate from which two ranks beat one, predicted from one process's speed and found by measurement."""
    if ranks.network is None:
        return []
    cases = {("one",): {"op": "forward", "method": "dsp", "n": 1}, ("two",): {"op": "forward", "method": "dsp", "n": 2}}
    found, alone = [], []
    for rate in BREAK_EVEN_MBIT:
        ranks.network.shape(rate)
        samples = _repeat(ranks, cases, MANY_REPEATS)
        # The least of the repeats: what else runs on the host can only add, and adds most to the side with two ranks.
        one, two = min(_slowest(samples["one",])), min(_slowest(samples["two",]))
        alone.append(one)
        found.append((rate, two / one))
    flops = pair_flops_per_token(CHANNELS, PATCHES, FRAMES) * FRAMES * PATCHES * BATCH
    rate_s = flops / min(alone)
    predicted = break_even_bytes_per_s(CHANNELS, PATCHES, FRAMES, 2, flops_per_s=rate_s) * 8e-6
    note = f"R = {rate_s / 1e9:.1f} GFLOP/s measured here, latency left out"
    metrics = [Metric("break-even link rate predicted, N=2", predicted, "Mbit/s", note=note)]
    metrics += [
        Metric(f"two ranks over one process, {rate} Mbit/s", ratio, "ratio", note="least of the repeats")
        for rate, ratio in found
    ]
    crossing = _crossing(found)
    if crossing is not None:
        metrics.append(
            Metric("break-even link rate found, N=2", crossing, "Mbit/s", against="predicted", against_value=predicted)
        )
    return metrics


def _crossing(points: Sequence[tuple[int, float]]) -> float | None:
    """Rate at which the ratio passes 1, between two measured rates, on a logarithmic scale."""
    for (rate_a, a), (rate_b, b) in pairwise(points):
        if a >= 1.0 > b:
            share = (a - 1.0) / (a - b)
            return math.exp(math.log(rate_a) + share * (math.log(rate_b) - math.log(rate_a)))
    return None


# -------------------------------------------------------------------------------------------- ONNX stages


def _export(folder: Path) -> list[Path]:
    """The same blocks as the ranks make, as ONNX graphs."""
    torch.manual_seed(0)
    blocks = [Block(CHANNELS, HEADS, axis).eval() for axis in (SPACE, TIME)]
    return [file.path for file in export_stages(blocks, folder)]


def _stages(ranks: RankFleet, paths: list[Path]) -> list[Metric]:
    """One stage on half the tokens, as at N=2: torch and ONNX Runtime with bound buffers."""
    parts = ([BATCH, FRAMES // 2, PATCHES, CHANNELS], [BATCH, FRAMES, PATCHES // 2, CHANNELS])
    names = ("spatial", "temporal")
    cases: dict[tuple[Any, ...], dict[str, Any]] = {}
    for index, (name, part) in enumerate(zip(names, parts, strict=True)):
        case = {"op": "stage", "n": 1, "block": index, "shape": part, "path": str(paths[index])}
        cases |= {(name, engine): {**case, "engine": engine} for engine in ("torch", "onnx")}
    samples = _repeat(ranks, cases)
    found = []
    for name in names:
        ours, theirs = ([s * 1e3 for s in _slowest(samples[name, engine])] for engine in ("onnx", "torch"))
        label = f"{name} stage in ONNX Runtime, half of the tokens"
        found.append(Metric.of_repeats(label, ours, "ms", against=f"torch {torch.__version__}", against_samples=theirs))
        error = max(_slowest(samples[name, "onnx"], "error"))
        found.append(Metric(f"largest error of the {name} stage in ONNX Runtime", error, "", aim=Aim(1e-5)))
    return found
