"""When bytes leave and when they arrive: a token bucket, then a delay line. Relay and simulator both call it."""

from __future__ import annotations

import math

import numpy as np

from skyshore.links.capacity import Capacity, Constant, Interrupted, bytes_by, when
from skyshore.links.records import CapacityTables
from skyshore.links.settings import Direction
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record

PACKET_BYTES = 1500
LONGEST_BURST_S = 0.005
"""Seconds of capacity that may be saved: enough for late timers, but short compared with a transfer."""
LEAST_BURST_BYTES = 2.0 * PACKET_BYTES
LEAST_RETRANSMIT_S = 0.001
LEAST_CHUNK_BYTES = PACKET_BYTES
MOST_CHUNK_BYTES = 128 * 1024
CHUNK_S = 0.01
"""A chunk takes about this long on its link: short enough to share fairly, long enough to be cheap."""
FASTEST_BYTES_PER_S = 1e12
"""Used instead of an unlimited rate where an outage needs a finite number."""


@kernel
def pour(tokens: float, fresh: float, since_s: float, size_bytes: float) -> float:
    """Bytes left in a bucket that held `tokens` and gained `fresh` in `since_s`, when so many are taken out."""
    burst = max(LEAST_BURST_BYTES, fresh / max(since_s, 1e-9) * LONGEST_BURST_S)
    return min(tokens + fresh, burst) - size_bytes


@kernel
def depart(bucket: Record, capacity: Record, tables: CapacityTables, now_s: float, size_bytes: float) -> float:
    """Accept bytes at `now_s` (never before an earlier call's) and return when the last of them has left."""
    if capacity.unlimited:
        return now_s
    carried = bytes_by(capacity, tables, now_s)
    bucket.tokens = pour(bucket.tokens, carried - bucket.seen_bytes, now_s - bucket.at_s, size_bytes)
    bucket.at_s, bucket.seen_bytes = now_s, carried
    # Saved tokens add speed, but do not pass an outage: the link must carry at least one byte from now on.
    return max(now_s, when(capacity, tables, carried + max(1.0, -bucket.tokens)))


@kernel
def arrive(line: Record, departed_s: float, size_bytes: float, normal: float, uniform: float) -> float:
    """When bytes that departed at `departed_s` are readable at the other end of a DIRECTION.

    `normal` is a standard normal deviate, used if there is jitter; `uniform` one in 0..1, used if there is loss.
    """
    delay_s = line.delay_s
    if line.jitter_s:
        delay_s = max(0.0, delay_s + line.jitter_s * normal)
    if line.loss:
        delay_s += line.retransmit_s * lost_rounds(line.loss, size_bytes, uniform)
    # A stream hands out bytes in order: whatever follows a late packet waits for it.
    arrives_s: float = max(line.last_s, departed_s + delay_s)
    line.last_s = arrives_s
    return arrives_s


@kernel
def lost_rounds(loss: float, size_bytes: float, uniform: float) -> int:
    """Most times any packet of the message is lost in a row; a packet is lost once with probability p, twice p²."""
    packets = max(1, math.ceil(size_bytes / PACKET_BYTES))
    # P(all packets arrive within k losses) = (1 - p^(k+1))^n, inverted at a uniform draw.
    share = uniform ** (1.0 / packets)
    if share <= 1.0 - loss or share >= 1.0:
        return 0
    return math.ceil(math.log1p(-share) / math.log(loss)) - 1


class Bucket:
    """BUCKET record over any capacity. Links that share one contend first come, first served."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.tokens = self.at_s = self.seen_bytes = 0.0

    def depart(self, now_s: float, size_bytes: float) -> float:
        """See `depart`."""
        return depart(self, self.capacity, self.capacity.tables, now_s, size_bytes)


class DelayLine:
    """DIRECTION record: propagation, jitter and retransmissions; keeps order."""

    def __init__(self, direction: Direction, rtt_s: float, rng: np.random.Generator) -> None:
        self.delay_s, self.jitter_s, self.loss = direction.delay_s, direction.jitter_s, direction.loss
        self.retransmit_s, self.last_s, self.rng = max(rtt_s, LEAST_RETRANSMIT_S), -math.inf, rng

    def arrive(self, departed_s: float, size_bytes: float) -> float:
        """See `arrive`."""
        normal = self.rng.standard_normal() if self.jitter_s else 0.0
        uniform = self.rng.random() if self.loss else 0.0
        return arrive(self, departed_s, size_bytes, normal, uniform)


class LinkDirection:
    """One direction of one link: its (perhaps shared) bucket and its own delay line."""

    def __init__(self, bucket: Bucket, line: DelayLine) -> None:
        self.bucket, self.line = bucket, line
        self.depart, self.arrive = bucket.depart, line.arrive

    @property
    def delay_s(self) -> float:
        """Propagation delay without jitter and loss."""
        return self.line.delay_s

    def deliver(self, now_s: float, size_bytes: float) -> float:
        """When a message handed over now is readable at the far end."""
        return self.arrive(self.depart(now_s, size_bytes), size_bytes)


def capacity_of(direction: Direction, trace: Capacity | None) -> Capacity:
    """The capacity behind a direction's settings; `trace` is the one its settings name."""
    if not direction.outages:
        return trace if trace is not None else Constant(direction.rate_bytes_per_s)
    rate = min(direction.rate_bytes_per_s, FASTEST_BYTES_PER_S)
    return Interrupted(trace if trace is not None else Constant(rate), direction.outages)


def chunk_bytes(direction: Direction, trace: Capacity | None) -> int:
    """Pieces in which a direction's bytes are handed on."""
    rate = direction.rate_bytes_per_s if trace is None else trace.bytes_by(60.0) / 60.0
    if math.isinf(rate):
        return MOST_CHUNK_BYTES
    return int(min(max(rate * CHUNK_S, LEAST_CHUNK_BYTES), MOST_CHUNK_BYTES))
