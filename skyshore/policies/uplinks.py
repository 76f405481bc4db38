"""The way to one node, as the bytes sent over it and the answers that came back tell it.

Whoever sends all the bytes knows what is still under way: what was handed over, less what the answers show to have
arrived. Bytes leave in order, so an answer clears all bytes before its own, those of tasks given up included. The time
they took, from when the way was free or they were handed over, is a sample of seconds per byte: the delivery-rate
samples of BBR (Cardwell and others, 2016). A heartbeat tells the same, but a second late.
"""

from __future__ import annotations

import math
from collections import deque

MEMORY_S = 0.5
"""What was seen of the rate counts half after this long."""
LEAST_BYTES = 15_000.0
"""Ten packets: what is smaller tells the round trip, not the rate."""
FORGOTTEN_S = 10.0
"""Bytes handed over so long ago are taken to have arrived, answer or not; a rate seen so long ago is not believed."""


class Uplink:
    """Bytes towards one node, first in, first out."""

    __slots__ = ("_bytes", "_placed", "_seconds", "_seen_at_s", "_sent", "_sent_at_s", "_waiting", "free_at_s", "pace")

    def __init__(self) -> None:
        self.free_at_s = 0.0
        """When the last byte handed over is due to have left."""
        self.pace = 0.0
        """Seconds per byte as seen; 0 before anything was."""
        self._placed = self._sent = 0.0
        self._sent_at_s = self._seen_at_s = -math.inf
        self._waiting: deque[tuple[float, float]] = deque()
        """Bytes handed over up to and with a task, and when; those not known to have arrived."""
        self._seconds = self._bytes = 0.0

    def send(self, now_s: float, size_bytes: float, stated_pace: float) -> float:
        """Hand a task's bytes over. Returns what `sent` wants of it."""
        while self._waiting and self._waiting[0][1] < now_s - FORGOTTEN_S:
            self._sent = self._waiting.popleft()[0]
        if now_s - self._seen_at_s > FORGOTTEN_S:
            self.pace = 0.0
        self.free_at_s = max(self.free_at_s, now_s) + size_bytes * (self.pace or stated_pace)
        self._placed += size_bytes
        self._waiting.append((self._placed, now_s))
        return self._placed

    def sent(self, mark: float, at_s: float, computed_s: float, stated_pace: float) -> None:
        """An answer shows that all bytes up to `mark` had left by `at_s`; then came `computed_s` of work on them."""
        if mark <= self._sent or not self._waiting:
            return
        begun_s = max(self._sent_at_s, self._waiting[0][1])
        size_bytes, took_s = mark - self._sent, at_s - begun_s
        while self._waiting and self._waiting[0][0] <= mark:
            self._waiting.popleft()
        # Answers no further apart than their work came from a busy engine, and say nothing of the way to it.
        if size_bytes >= LEAST_BYTES and took_s > computed_s:
            self._learn(at_s, size_bytes, took_s)
        self._sent, self._sent_at_s = mark, max(at_s, self._sent_at_s)
        free_at_s, before, pace = self._sent_at_s, mark, self.pace or stated_pace
        for upto, handed_s in self._waiting:
            free_at_s = max(free_at_s, handed_s) + (upto - before) * pace
            before = upto
        self.free_at_s = free_at_s

    def late(self, mark: float, at_s: float, stated_pace: float) -> None:
        """A task was given up whose bytes had not left by `at_s`: the way is slower than thought, if that is news."""
        if mark <= self._sent or not self._waiting:
            return
        begun_s, pace = max(self._sent_at_s, self._waiting[0][1]), self.pace or stated_pace
        size_bytes, took_s = mark - self._sent, at_s - begun_s
        if took_s > size_bytes * pace:
            self._learn(at_s, size_bytes, took_s)
            self.free_at_s = max(self.free_at_s, at_s + (self._placed - mark) * self.pace)

    def _learn(self, at_s: float, size_bytes: float, took_s: float) -> None:
        keep = 0.5 ** (max(at_s - self._seen_at_s, 0.0) / MEMORY_S)
        self._seconds = keep * self._seconds + took_s
        self._bytes = keep * self._bytes + size_bytes
        self._seen_at_s = max(at_s, self._seen_at_s)
        self.pace = self._seconds / self._bytes
