"""The forecast of one arm: the latency, joules and lost deadlines of a task there. See `policies.skyshore`."""

from __future__ import annotations

import math

from skyshore.rules.arm_model import LEAST_JOULES_SHARE, failure_weight, predicted_latency_s, stated_joules
from skyshore.rules.kernel import kernel
from skyshore.rules.miss_risk import miss_chance
from skyshore.rules.records import Floats, Options, Record

BLOCK = 128
"""Most numbers that `pairwise_sum` adds without halving."""


@kernel
def startup_times(estimate: Record, node: Record, engine_free_at_s: float, now_s: float) -> tuple[float, float, float]:
    """Seconds until the task's bytes are there, seconds until its engine is free too, seconds of other tasks before it.

    The core states the queue of the whole node. Tasks of ours on an engine that serves one at a time are in
    `engine_free_at_s`, so only the share of tasks that others sent remains.
    """
    sent_s, queue_s = estimate.transmission_s, estimate.queue_s
    wait_s, s_per_byte = node.free_at_s - now_s, node.s_per_byte
    if wait_s > 0.0:
        sent_s += wait_s
    if s_per_byte > 0.0:
        sent_s += estimate.up_bytes * (s_per_byte - 1.0 / estimate.up_bytes_per_s)
    start_s = engine_free_at_s - now_s
    if queue_s != 0.0 and estimate.slots <= 1.0:
        load = estimate.load
        others = load - node.tasks
        queue_s *= (others if others > 0.0 else 0.0) / (load if load > 1.0 else 1.0)
    return sent_s, start_s if start_s > sent_s else sent_s, queue_s


@kernel
def added_joules(estimate: Record, arm: Record, alone: float, now_s: float, optimism: float) -> float:
    """ΔJ, with optimism about arms of few outcomes and a penalty for failures.

    stated joules · max(v₀ + v₁·alone, 0.02) · (1 − optimism / √(4 + count)) · (1 + 10·failures); `alone` is the share
    of its latency for which the task would keep the node busy by itself.
    """
    share = arm.joules_base + arm.joules_slope * (0.0 if alone < 0.0 else (alone if alone < 1.0 else 1.0))
    joules = stated_joules(estimate) * (share if share > LEAST_JOULES_SHARE else LEAST_JOULES_SHARE)
    joules *= 1.0 - optimism / math.sqrt(4.0 + arm.count)
    if arm.failed_share != 0.0:
        joules *= 1.0 + 10.0 * arm.failed_share * failure_weight(arm.failed_at_s, now_s)
    return float(joules)


@kernel
def forecast_arm(  # noqa: PLR0917 (numba takes arguments by position)
    estimate: Record, arm: Record, node: Record, engine: Record, demand: Record, chance: Floats, optimism: float
) -> tuple[float, float, float, float, float, float]:
    """The three times of `startup_times`, latency in seconds, joules, and the deadlines that would be lost.

    Lost deadlines: the probability that the task misses its own (from `chance`, the curve of its class) plus the number
    of deadlines of other tasks that it would break.
    """
    now_s = demand.now_s
    sent_s, start_s, queue_s = startup_times(estimate, node, engine.free_at_s, now_s)
    latency_s = predicted_latency_s(estimate, arm, start_s, queue_s)
    joules = added_joules(estimate, arm, (now_s + latency_s - node.ends_at_s) / latency_s, now_s, optimism)
    spare = (demand.remaining_s / latency_s - 1.0) / arm.sigma
    return sent_s, start_s, queue_s, latency_s, joules, miss_chance(chance, spare) + node.broken


@kernel
def lacking_quality(estimate: Record, arm: Record, floor: float) -> float:
    """The floor minus the learned quality of an arm; positive if the quality is too low."""
    return float(floor - estimate.quality - arm.quality_offset)


@kernel
def largest_cost(options: Options) -> float:
    """Largest cost of all options; scores are minus the cost."""
    largest = -options.scores[0]
    for index in range(1, options.decision[0].count):
        largest = max(largest, -options.scores[index])
    return float(largest)


@kernel
def pairwise_sum(values: Floats, count: int) -> float:
    """Sum of the first values in the order of `numpy.sum`, which halves until a block has at most `BLOCK` of them.

    The sums of left halves are kept at the beginning of `values`, whose own values are not needed any more.
    """
    waiting = done = 0
    while done < count:
        size, complete = count, 0
        start = 0
        while size > BLOCK:
            half = size // 2
            half -= half % 8
            if done < start + half:
                size, complete = half, 0
            else:
                start, size, complete = start + half, size - half, complete + 1
        total = block_sum(values, start, size)
        for _ in range(complete):
            waiting -= 1
            total = values[waiting] + total
        values[waiting] = total
        waiting, done = waiting + 1, start + size
    return float(values[0])


@kernel
def block_sum(values: Floats, start: int, count: int) -> float:
    """Eight running sums, then what is left over: a block of `pairwise_sum`."""
    total, rest = 0.0, start
    if count >= 8:
        a, b, c, d = values[start], values[start + 1], values[start + 2], values[start + 3]
        e, f, g, h = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
        rest = start + count - count % 8
        for index in range(start + 8, rest, 8):
            a, b, c, d = a + values[index], b + values[index + 1], c + values[index + 2], d + values[index + 3]
            e, f, g, h = e + values[index + 4], f + values[index + 5], g + values[index + 6], h + values[index + 7]
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for index in range(rest, start + count):
        total += values[index]
    return float(total)
