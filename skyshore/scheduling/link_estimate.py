"""A guess at a node's link from what tasks took, for as long as nobody measures it directly."""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.outcome import Outcome

LARGE_BYTES = 50_000
"""Transfers at least this large tell the rate; smaller ones tell the round trip."""
WEIGHT = 0.2
"""Of the newest observation in the exponential means."""


@dataclass(slots=True)
class LinkEstimate:
    """Exponential means of round trip and rate. What the node did not account for is taken as the link's."""

    up_bytes_per_s: float = 0.0
    rtt_s: float = 0.0
    joules_per_byte: float = 0.0

    def observe(self, outcome: Outcome) -> None:
        """Learn from a finished task."""
        worker = outcome.worker
        on_link_s = outcome.latency_s - outcome.gateway_s - worker.queue_s - worker.prefill_s - worker.compute_s
        if on_link_s <= 0:
            return
        up_bytes, down_bytes = outcome.up_bytes, outcome.down_bytes
        if up_bytes >= LARGE_BYTES:
            self.up_bytes_per_s = mean(self.up_bytes_per_s, up_bytes / transfer_s(on_link_s, self.rtt_s))
        else:
            self.rtt_s = mean(self.rtt_s, on_link_s)
        if outcome.transmission_joules and up_bytes + down_bytes:
            self.joules_per_byte = mean(self.joules_per_byte, outcome.transmission_joules / (up_bytes + down_bytes))


def transfer_s(on_link_s: float, rtt_s: float) -> float:
    """What the bytes themselves took."""
    return max(on_link_s - rtt_s, 0.1 * on_link_s)


def mean(old: float, new: float) -> float:
    """Exponential mean; `old` is 0 before the first observation."""
    return new if old == 0.0 else old + WEIGHT * (new - old)
