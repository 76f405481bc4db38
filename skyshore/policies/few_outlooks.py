"""What `Skyshore.select` foresees of each arm, for a handful of arms in plain numbers: the same sums in the same order.

So the results are equal to the bit; where the C library's functions may round otherwise than numpy's, numpy's are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skyshore.policies.arm_models import FAILURE_FADES_S, LEAST_SHARE, QUALITY, UNKNOWN_WATTS
from skyshore.policies.in_flight import NodeLoad
from skyshore.policies.protocol import ArmEstimate, Context

FewLearned = Sequence[Sequence[float]]
"""Per arm what `ArmModels.of_few` gives."""


class FewOutlooks(NamedTuple):
    """Columns over the arms."""

    latency_s: list[float]
    spare: list[float]
    """What is left of the deadline after it, in σ."""
    joules: list[float]
    """What the task adds to the node's bill."""
    lead: list[tuple[float, float, float]]
    """Seconds until its bytes are there, until its engine is free too, and of others' tasks before it."""


def few_outlooks(
    arms: Sequence[ArmEstimate],
    learned: FewLearned,
    nodes: Sequence[NodeLoad],
    free_at_s: Sequence[float],
    context: Context,
    *,
    optimism: float,
) -> FewOutlooks:
    """Of each arm, by its estimate, what is learned of it, what is on its node, and when its engine is free."""
    outlooks, now_s, remaining_s = FewOutlooks([], [], [], []), context.now_s, context.remaining_s
    for arm, row, node, engine_free_at_s in zip(arms, learned, nodes, free_at_s, strict=True):
        _, _, _, _, slots, transmission_s, queue_s, stated_s, stated, up_bytes, load, _, _, rate, _ = arm
        u0, u1, v0, v1, rest_s, spread, count, _, failed, failed_at_s, growth = row
        wait_s, pace = node.uplink.free_at_s - now_s, node.uplink.pace
        sent_s = transmission_s + wait_s if wait_s > 0.0 else transmission_s
        if pace > 0.0:
            sent_s += up_bytes * (pace - 1.0 / rate)
        start_s = engine_free_at_s - now_s
        start_s = start_s if start_s > sent_s else sent_s
        if queue_s and slots <= 1.0:
            others = load - len(node.tasks)
            queue_s *= (others if others > 0.0 else 0.0) / (load if load > 1.0 else 1.0)
        crowd = load + growth
        crowd = (0.0 if crowd < 0.0 else crowd if crowd < slots - 1.0 else slots - 1.0) / slots
        latency_s = start_s + queue_s * u0 + stated_s * (u0 + u1 * crowd) + rest_s
        least_s = LEAST_SHARE * (transmission_s + stated_s) + 1e-3
        latency_s = latency_s if latency_s > least_s else least_s
        alone = (now_s + latency_s - node.ends_at_s) / latency_s
        share = v0 + v1 * (0.0 if alone < 0.0 else alone if alone < 1.0 else 1.0)
        joules = (stated if stated > 0.0 else UNKNOWN_WATTS * stated_s) * (share if share > 0.02 else 0.02)
        joules *= 1.0 - optimism / math.sqrt(4.0 + count)
        if failed:
            joules *= 1.0 + 10.0 * failed * float(np.exp(-max(now_s - failed_at_s, 0.0) / FAILURE_FADES_S))
        outlooks.latency_s.append(latency_s)
        outlooks.spare.append((remaining_s / latency_s - 1.0) / spread)
        outlooks.joules.append(joules)
        outlooks.lead.append((sent_s, start_s, queue_s))
    return outlooks


def few_priced_quality(
    arms: Sequence[ArmEstimate], learned: FewLearned, floor: float, costs: list[float]
) -> list[float]:
    """Arms whose learned quality is too low cost more than any that is good enough."""
    dearest, priced = max(costs), []
    for arm, row, cost in zip(arms, learned, costs, strict=True):
        lacking = floor - arm.quality - row[QUALITY]
        priced.append(cost + (1.0 + lacking) * dearest if lacking > 0.0 else cost)
    return priced
