"""What DSP should gain where nothing was measured: α–β predictions, each with its α, β and rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from benchmarks.result import Metric
from cloud_node.dsp.baselines.methods import METHODS
from cloud_node.dsp.cost import Fabric, pair_flops_per_token


@dataclass(frozen=True, slots=True)
class PredictedCluster:
    """Accelerators and the slowest link between them, as assumed."""

    name: str
    fabric: Fabric


NVLINK = PredictedCluster("NVLink within a node", Fabric(flops_per_s=400e12, bytes_per_s=200e9, alpha_s=20e-6))
INFINIBAND = PredictedCluster(
    "one 400 Gbit/s port per GPU", Fabric(flops_per_s=400e12, bytes_per_s=50e9, alpha_s=30e-6)
)

CHANNELS, PATCHES, ITEMSIZE = 1152, 4096, 2
"""An Open-Sora-like pair in bf16, at one of the paper's sizes."""
LEAST_FRAMES = 64
"""With more GPUs than that, the clip grows so that each has a frame."""

_EXCHANGES = {"dsp": 2, "ulysses": 2, "ulysses-flattened": 4, "megatron": 8}
"""Exchanges that wait for each other in one pair, q, k and v in one message; ring hops depend on N."""


def pair_s(method: str, n: int, frames: int, fabric: Fabric) -> float:
    """Seconds of one pair: computation shared evenly, exchanges not overlapped with it."""
    tokens = frames * PATCHES
    compute_s = fabric.compute_s(pair_flops_per_token(CHANNELS, PATCHES, frames) * tokens / n)
    share: Fraction = METHODS[method].per_pair(n)
    payload = float(share) * tokens * CHANNELS * ITEMSIZE
    waits = n - 1 if method == "ring" else _EXCHANGES[method]
    return compute_s + (waits * fabric.alpha_s + payload / fabric.bytes_per_s if n > 1 else 0.0)


def predictions() -> list[Metric]:
    """Speed-up of DSP over one GPU, and over Ulysses as the paper runs it, for 8 to 128 GPUs."""
    found = []
    for n, cluster in ((8, NVLINK), (16, INFINIBAND), (64, INFINIBAND), (128, INFINIBAND)):
        fabric, frames = cluster.fabric, max(LEAST_FRAMES, n)
        note = (
            f"α–β prediction, not a measurement: {cluster.name}, R = {fabric.flops_per_s / 1e12:.0f} TFLOP/s, "
            f"β = {fabric.bytes_per_s / 1e9:.0f} GB/s, α = {fabric.alpha_s * 1e6:.0f} µs; "
            f"T={frames} S={PATCHES} C={CHANNELS} in bf16"
        )
        alone = pair_s("dsp", 1, frames, fabric)
        ours = pair_s("dsp", n, frames, fabric)
        found.append(Metric(f"predicted speed-up of DSP over one GPU, N={n}", alone / ours, "×", note=note))
        for rival in ("ulysses", "ulysses-flattened", "ring", "megatron"):
            label = f"predicted speed-up of DSP over {rival}, N={n}"
            found.append(Metric(label, pair_s(rival, n, frames, fabric) / ours, "×", note=note))
    return found
