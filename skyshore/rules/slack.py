"""Normalised slack of the constraints C1 to C3 (PerLLM, digest 1.2 and eq. 3): at least 0 exactly where all hold."""

from __future__ import annotations

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Floats, Record


@kernel
def deadline_slack(latency_s: Floats, remaining_s: float) -> Floats:
    """C1: share of the remaining time left over after the latency (a number or an array); unbounded below."""
    return 1.0 - latency_s / max(remaining_s, 1e-9)


@kernel
def spare_share(  # noqa: PLR0917 (numba takes arguments by position)
    load: float,
    capacity: float,
    up_bytes: float,
    reserved_bytes_per_s: float,
    up_bytes_per_s: float,
    kv_used: float,
    remaining_s: float,
) -> float:
    """C2 (room for one more task) and C3 (link rate, KV memory): the least of the three; `remaining_s` is positive."""
    compute = (capacity - load - 1.0) / capacity
    bandwidth = 1.0 - (reserved_bytes_per_s + up_bytes / remaining_s) / up_bytes_per_s
    return min(compute, bandwidth, 1.0 - kv_used)


@kernel
def least_slack(estimate: Record, remaining_s: float) -> float:
    """The least slack of C1 to C3: f of eq. 3."""
    return float(min(deadline_slack(estimate.latency_s, remaining_s), estimate.spare_share))
