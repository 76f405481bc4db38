"""Exact payload of every exchange, from layouts alone. What the counting transport must see. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_node.dsp.layout import Layout
from cloud_node.dsp.wire import Wire


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one rank sends to others; what it keeps for itself is not counted."""

    payload_bytes: int = 0
    messages: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.payload_bytes + other.payload_bytes, self.messages + other.messages)


def switch_traffic(source: Layout, target: Layout, rank: int, wire: Wire = Wire.EXACT, itemsize: int = 4) -> Traffic:
    """One switch: all-to-all of the parts that change hands; M(N-1)/N² when all sizes divide by N (DSP, eq. M/N)."""
    if source.dim == target.dim:
        return Traffic()
    token_bytes = wire.token_bytes(source.channels, itemsize)
    counts = [source.shared_tokens(rank, target, peer) for peer in range(source.ranks) if peer != rank]
    return Traffic(sum(counts) * token_bytes, sum(count > 0 for count in counts))


def gather_traffic(source: Layout, rank: int, wire: Wire = Wire.EXACT, itemsize: int = 4) -> Traffic:
    """One gather: a rank sends its whole part to every peer; M(N-1)/N each when N divides the cut dimension."""
    own, peers = source.tokens(rank), source.ranks - 1
    return Traffic(own * wire.token_bytes(source.channels, itemsize) * peers, peers if own else 0)
