"""Estimated latency and joules of a task on an arm, from stated speeds, the measured link and the queue."""

from __future__ import annotations

import math

from skyshore.rules.kernel import kernel
from skyshore.rules.records import LLM, Record
from skyshore.rules.slack import spare_share


@kernel
def expected_queue_s(load: float, own: float, slots: float, backlog_s: float, service_s: float) -> float:
    """Seconds until a slot is free: first come, first served, with exponential residual work.

    (tasks ahead beyond the free slots) × (mean work of a task of ours in flight) / slots. A node that has only others'
    tasks is assumed to work on tasks of our kind.
    """
    ahead = load - slots + 1.0
    if ahead <= 0:
        return 0.0
    return ahead * (backlog_s / own if own > 0 else service_s) / slots


@kernel
def service_seconds(demand: Record, arm: Record) -> float:
    """Seconds of computation on an idle arm."""
    if demand.kind == LLM:
        return float(demand.prompt_tokens * arm.prefill_s_per_token + demand.expected_tokens * arm.decode_s_per_token)
    return float(math.ceil(demand.frames / arm.stride) * arm.frame_s)


@kernel
def bytes_to_node(demand: Record, arm: Record) -> float:
    """Bytes that the task sends to the arm's node."""
    if demand.kind == LLM:
        return float(demand.input_bytes)
    per_frame = arm.bytes_per_frame if arm.bytes_per_frame > 0 else demand.input_bytes / max(demand.frames, 1)
    return float(math.ceil(demand.frames / arm.stride) * per_frame)


@kernel
def estimate_arm(estimate: Record, demand: Record, arm: Record, node: Record) -> None:
    """Fill in an ESTIMATE. Joules are those above idle, as if the arm worked for this task alone."""
    service_s, up_bytes = service_seconds(demand, arm), bytes_to_node(demand, arm)
    load = node.own + node.foreign
    queue_s = expected_queue_s(load, node.own, arm.slots, node.backlog_s, service_s)
    transmission_s = node.rtt_s + up_bytes / node.bytes_per_s
    estimate.transmission_s, estimate.queue_s, estimate.service_s = transmission_s, queue_s, service_s
    estimate.latency_s = transmission_s + queue_s + service_s
    estimate.joules = arm.busy_watts * service_s + node.joules_per_byte * up_bytes
    estimate.up_bytes, estimate.load, estimate.capacity = up_bytes, load, node.capacity
    estimate.kv_used, estimate.up_bytes_per_s = node.kv_used, node.bytes_per_s
    estimate.reserved_bytes_per_s = node.reserved_bytes_per_s
    estimate.quality, estimate.slots, estimate.is_cloud = arm.quality, arm.slots, arm.is_cloud
    estimate.slot, estimate.engine = arm.slot, arm.engine
    estimate.spare_share = spare_share(
        load,
        node.capacity,
        up_bytes,
        node.reserved_bytes_per_s,
        node.bytes_per_s,
        node.kv_used,
        max(demand.remaining_s, 1e-9),
    )
