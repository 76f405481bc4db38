"""Reservations: the capacity that attempts take on their node, from placement to end."""

from __future__ import annotations

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Options, Record

GRACE_S = 5.0
"""Seconds after its deadline at which a task without a report is dropped, unless set otherwise."""


@kernel
def update_open(node: Record) -> None:
    """A node takes another task while it is not draining and not full."""
    node.open = 1 if not node.draining and node.own + node.foreign < node.capacity else 0


@kernel
def start_attempt(attempt: Record, demand: Record, options: Options, grace_s: float) -> None:
    """Record the attempt at the arm that was chosen."""
    estimate = options.estimates[options.decision[0].index]
    attempt.decided_s, attempt.waited_s, attempt.remaining_s = demand.now_s, demand.waited_s, demand.remaining_s
    attempt.deadline_s, attempt.min_quality = demand.deadline_s, demand.min_quality
    attempt.transmission_s, attempt.queue_s, attempt.service_s = (
        estimate.transmission_s,
        estimate.queue_s,
        estimate.service_s,
    )
    attempt.latency_s, attempt.joules, attempt.up_bytes = estimate.latency_s, estimate.joules, estimate.up_bytes
    attempt.load, attempt.capacity, attempt.kv_used = estimate.load, estimate.capacity, estimate.kv_used
    attempt.up_bytes_per_s, attempt.reserved_bytes_per_s = estimate.up_bytes_per_s, estimate.reserved_bytes_per_s
    attempt.quality, attempt.slots, attempt.spare_share = estimate.quality, estimate.slots, estimate.spare_share
    attempt.bytes_per_s = estimate.up_bytes / max(demand.remaining_s, 1e-3)
    attempt.expires_at_s = demand.now_s + max(demand.remaining_s, 0.0) + grace_s
    attempt.forgotten = 0
    attempt.task, attempt.serial, attempt.attempt = demand.task, demand.serial, demand.attempt
    attempt.arm, attempt.node, attempt.is_cloud = estimate.arm, estimate.node, estimate.is_cloud
    attempt.slot, attempt.engine, attempt.kind, attempt.group = (
        estimate.slot,
        estimate.engine,
        demand.kind,
        demand.group,
    )


@kernel
def reserve(node: Record, attempt: Record) -> None:
    """Count an attempt against its node until `release`."""
    attempt.in_flight = 1
    node.own += 1.0
    node.backlog_s += attempt.service_s
    node.reserved_bytes_per_s += attempt.bytes_per_s
    node.peak = max(node.peak, node.own)
    update_open(node)


@kernel
def release(node: Record, attempt: Record) -> None:
    """Release the reservation of an attempt that ended, with any result."""
    attempt.in_flight = 0
    node.own -= 1.0
    if node.own > 0:
        node.backlog_s -= attempt.service_s
        node.reserved_bytes_per_s -= attempt.bytes_per_s
    else:  # an idle node has no reservations: remove rounding errors
        node.backlog_s = node.reserved_bytes_per_s = 0.0
    update_open(node)


@kernel
def mark_full(node: Record) -> None:
    """The node turned a task away: count it as full until its next heartbeat."""
    node.foreign = max(node.foreign, node.capacity - node.own)
    update_open(node)
