"""What a link turns out to do: its rate and delay from the times at which bytes entered, left and arrived.

The relay feeds it with what its clock said, the simulator with what the arithmetic said; neither shows it a setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from skyshore.links.shaper import Bucket, DelayLine, OneWay

MEMORY_S = 1.0
"""What is known of a rate counts half after this long (exponential forgetting)."""
LEAST_WAIT_S = 1e-3
"""A piece that waited less than this behind another did not meet the link's limit."""
SMALL_BYTES = 1500
"""One packet: what is no larger tells the delay."""
DELAY_WEIGHT = 0.1
"""Of the newest small piece in the mean delay."""
LEAST_BUSY_S = 1e-3
"""A rate is believed once the link was seen busy for so long."""


def mean_delay_s(before_s: float, took_s: float) -> float:
    """Exponential mean of delays; `before_s` is 0 for the first."""
    return took_s if before_s == 0.0 else before_s + DELAY_WEIGHT * (took_s - before_s)


def fade(passed_s: float) -> float:
    """Weight left of what was seen so long ago."""
    return math.exp2(-passed_s / MEMORY_S)


@dataclass(slots=True)
class WayMeter:
    """One direction. Feed it in order of arrival."""

    delay_s: float = 0.0
    """Mean time that small pieces take from end to end, waiting included; 0 before the first."""
    _bytes: float = field(default=0.0, init=False)
    _busy_s: float = field(default=0.0, init=False)
    _last_left_s: float = field(default=float("-inf"), init=False)
    _counted_s: float = field(default=float("-inf"), init=False)

    def observe(self, entered_s: float, left_s: float, arrived_s: float, size_bytes: float) -> None:
        """A piece was handed over, had left the near end, and could be read at the far one."""
        if size_bytes <= SMALL_BYTES:
            took_s = arrived_s - entered_s
            self.delay_s = mean_delay_s(self.delay_s, took_s)
        before_s, self._last_left_s = self._last_left_s, left_s
        # Only a piece that waited behind another tells the rate: the first after a rest may ride on saved-up tokens.
        if entered_s + LEAST_WAIT_S < before_s < left_s:
            keep = fade(left_s - self._counted_s)
            self._bytes = keep * self._bytes + size_bytes
            self._busy_s = keep * self._busy_s + left_s - before_s
            self._counted_s = left_s

    @property
    def bytes_per_s(self) -> float:
        """Bytes that left per second in which something waited to leave; 0 where nothing ever waited."""
        return self._bytes / self._busy_s if self._busy_s >= LEAST_BUSY_S else 0.0


class MeteredWay(OneWay):
    """One direction that is measured as the relay measures it: message by message, in pieces of `chunk_bytes`."""

    def __init__(self, bucket: Bucket, line: DelayLine, chunk_bytes: int) -> None:
        super().__init__(bucket, line)
        self.meter = WayMeter()
        self.chunk_bytes = chunk_bytes

    def deliver(self, now_s: float, size_bytes: float) -> float:
        """See `OneWay`."""
        rest, arrived_s = size_bytes, now_s
        while rest > 0:
            piece = min(rest, self.chunk_bytes)
            left_s = self.depart(now_s, piece)
            arrived_s = self.arrive(left_s, piece)
            self.meter.observe(now_s, left_s, arrived_s, piece)
            rest -= piece
        return arrived_s
