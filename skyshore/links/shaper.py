"""When bytes leave and when they arrive: a token bucket, then a delay line. Relay and simulator both call it."""

from __future__ import annotations

import math

import numpy as np

from skyshore.links.capacity import Capacity, Constant, Interrupted, unlimited
from skyshore.links.settings import Direction

PACKET_BYTES = 1500
LONGEST_BURST_S = 0.005
"""Seconds of capacity that may be saved up: covers late timers, and is short against any transfer worth shaping."""
LEAST_BURST_BYTES = 2 * PACKET_BYTES
LEAST_RETRANSMIT_S = 0.001
LEAST_CHUNK_BYTES = PACKET_BYTES
MOST_CHUNK_BYTES = 128 * 1024
CHUNK_S = 0.01
"""A chunk takes about this long on its link: short enough to share fairly, long enough to be cheap."""
FASTEST_BYTES_PER_S = 1e12
"""Stands for an unlimited rate where an outage needs arithmetic with it."""


def pour(tokens: float, fresh: float, since_s: float, size_bytes: float) -> float:
    """Bytes left in a bucket that held `tokens` and gained `fresh` in `since_s`, when so many are taken out."""
    burst = max(LEAST_BURST_BYTES, fresh / max(since_s, 1e-9) * LONGEST_BURST_S)
    return min(tokens + fresh, burst) - size_bytes


class Bucket:
    """Token bucket over any capacity. Links that share one contend first come, first served."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._unlimited = unlimited(capacity)
        # Unspent tokens in bytes; negative while what was accepted has not yet left.
        self._tokens, self._at_s, self._seen = 0.0, 0.0, 0.0

    def depart(self, now_s: float, size_bytes: float) -> float:
        """Accept bytes at `now_s` (never before an earlier call's) and say when the last of them has left."""
        if self._unlimited:
            return now_s
        carried = self.capacity.bytes_by(now_s)
        fresh = carried - self._seen
        self._tokens = pour(self._tokens, fresh, now_s - self._at_s, size_bytes)
        self._at_s, self._seen = now_s, carried
        # Saved tokens buy speed, not passage through an outage: the link must carry at least one byte from now on.
        return max(now_s, self.capacity.when(carried + max(1.0, -self._tokens)))


class DelayLine:
    """Propagation, jitter and retransmissions of one direction; keeps order."""

    def __init__(self, direction: Direction, rtt_s: float, rng: np.random.Generator) -> None:
        self.direction, self.rng = direction, rng
        self._retransmit_s = max(rtt_s, LEAST_RETRANSMIT_S)
        self._last_s = -math.inf

    @property
    def delay_s(self) -> float:
        """Propagation delay without jitter and loss."""
        return self.direction.delay_s

    def arrive(self, departed_s: float, size_bytes: float) -> float:
        """When bytes that departed then are readable at the other end."""
        direction = self.direction
        delay_s = direction.delay_s
        if direction.jitter_s:
            delay_s = max(0.0, delay_s + direction.jitter_s * self.rng.standard_normal())
        if direction.loss:
            delay_s += self._retransmit_s * self._rounds(size_bytes)
        # A stream hands out bytes in order: whatever follows a late packet waits for it.
        self._last_s = max(self._last_s, departed_s + delay_s)
        return self._last_s

    def _rounds(self, size_bytes: float) -> int:
        """Most times any packet of the message is lost in a row; a packet is lost once with probability p, twice p²."""
        packets = max(1, math.ceil(size_bytes / PACKET_BYTES))
        # P(all packets arrive within k losses) = (1 - p^(k+1))^n, inverted at a uniform draw.
        share = self.rng.random() ** (1.0 / packets)
        if share <= 1.0 - self.direction.loss:
            return 0
        return math.ceil(math.log1p(-share) / math.log(self.direction.loss)) - 1 if share < 1.0 else 0


class OneWay:
    """One direction of one link: its (perhaps shared) bucket and its own delay line."""

    def __init__(self, bucket: Bucket, line: DelayLine) -> None:
        self.bucket, self.line = bucket, line

    @property
    def delay_s(self) -> float:
        """Propagation delay without jitter and loss."""
        return self.line.delay_s

    def depart(self, now_s: float, size_bytes: float) -> float:
        """When the last byte has left the near end."""
        return self.bucket.depart(now_s, size_bytes)

    def arrive(self, departed_s: float, size_bytes: float) -> float:
        """When the last byte is readable at the far end."""
        return self.line.arrive(departed_s, size_bytes)

    def deliver(self, now_s: float, size_bytes: float) -> float:
        """Both at once: when a message handed over now is readable at the far end."""
        return self.line.arrive(self.bucket.depart(now_s, size_bytes), size_bytes)


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
