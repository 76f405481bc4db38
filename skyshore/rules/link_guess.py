"""Guesses the rate and delay of a node's link from the times of tasks, until the link is measured directly."""

from __future__ import annotations

from skyshore.rules.heartbeat import set_link
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record

LARGE_BYTES = 50_000
"""Transfers at least this large show the rate; smaller ones show the round trip."""
WEIGHT = 0.2
"""Weight of the newest observation in the exponential means."""


@kernel
def mean(old: float, new: float) -> float:
    """Exponential mean; `old` is 0 before the first observation."""
    return new if old == 0.0 else old + WEIGHT * (new - old)


@kernel
def transfer_s(on_link_s: float, rtt_s: float) -> float:
    """Seconds for the bytes themselves, without the round trip; at least a tenth of the time on the link."""
    return max(on_link_s - rtt_s, 0.1 * on_link_s)


@kernel
def guess_link(node: Record, attempt: Record) -> None:
    """Learn from an answered attempt. The time that gateway and node do not report is counted as time on the link."""
    on_link_s = attempt.measured_s - attempt.gateway_s - attempt.queued_s - attempt.prefill_s - attempt.compute_s
    if on_link_s > 0:
        if attempt.sent_bytes >= LARGE_BYTES:
            rate = attempt.sent_bytes / transfer_s(on_link_s, node.guess_rtt_s)
            node.guess_bytes_per_s = mean(node.guess_bytes_per_s, rate)
        else:
            node.guess_rtt_s = mean(node.guess_rtt_s, on_link_s)
        moved_bytes = attempt.sent_bytes + attempt.received_bytes
        if attempt.transmission_joules != 0.0 and moved_bytes > 0:
            joules_per_byte = attempt.transmission_joules / moved_bytes
            node.guess_joules_per_byte = mean(node.guess_joules_per_byte, joules_per_byte)
    set_link(node, node.guess_bytes_per_s, node.guess_rtt_s, node.guess_joules_per_byte)
