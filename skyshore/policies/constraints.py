"""Normalised slack of the constraints C1 to C3 (PerLLM, digest 1.2 and eq. 3): f ≥ 0 exactly where all hold.

Written for whole columns of `Arms` and for a single `ArmEstimate` alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyshore.policies.protocol import ArmEstimate, Arms, Context, Floats


def deadline_slack(arms: Arms, context: Context) -> Floats:
    """C1: share of the remaining time left over after the estimated latency; unbounded below."""
    return 1.0 - arms.latency_s / max(context.remaining_s, 1e-9)


def resource_slack(arms: Arms, context: Context) -> Floats:
    """C2 (room for one more task) and C3 (link rate, KV memory): the least of the three, per arm."""
    compute = (arms.capacity - arms.load - 1.0) / arms.capacity
    needed = arms.up_bytes / max(context.remaining_s, 1e-9)
    bandwidth = 1.0 - (arms.reserved_bytes_per_s + needed) / arms.up_bytes_per_s
    return np.minimum(np.minimum(compute, bandwidth), 1.0 - arms.kv_used)


def slack_at_dispatch(arm: ArmEstimate, context: Context) -> float:
    """`resource_slack` of one arm."""
    return spare_share(
        arm.load,
        arm.capacity,
        arm.up_bytes,
        arm.reserved_bytes_per_s,
        arm.up_bytes_per_s,
        arm.kv_used,
        max(context.remaining_s, 1e-9),
    )


def spare_share(  # noqa: PLR0917 - numba takes them so
    load: float,
    capacity: float,
    up_bytes: float,
    reserved_bytes_per_s: float,
    up_bytes_per_s: float,
    kv_used: float,
    remaining_s: float,
) -> float:
    """`resource_slack` in plain numbers."""
    compute = (capacity - load - 1.0) / capacity
    bandwidth = 1.0 - (reserved_bytes_per_s + up_bytes / remaining_s) / up_bytes_per_s
    return min(compute, bandwidth, 1.0 - kv_used)


def least_slacks(arms: Sequence[ArmEstimate], context: Context) -> list[float]:
    """The least of all three per arm, the f of eq. 3: for few arms, without numpy and without a call per arm."""
    remaining_s = max(context.remaining_s, 1e-9)
    slacks = []
    for arm in arms:
        least = 1.0 - (arm.transmission_s + arm.queue_s + arm.service_s) / remaining_s
        compute = (arm.capacity - arm.load - 1.0) / arm.capacity
        least = min(least, compute)
        bandwidth = 1.0 - (arm.reserved_bytes_per_s + arm.up_bytes / remaining_s) / arm.up_bytes_per_s
        least = min(least, bandwidth)
        memory = 1.0 - arm.kv_used
        slacks.append(memory if memory < least else least)
    return slacks
