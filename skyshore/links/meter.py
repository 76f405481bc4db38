"""Measures a link's rate and delay from the times at which bytes entered, left and arrived.

The relay gives it times of its clock, the simulator computed times. The meter never sees the settings of the link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record

MEMORY_S = 1.0
"""Half-life of a rate sample (exponential forgetting)."""
LEAST_WAIT_S = 1e-3
"""A piece that waited less than this behind another was not limited by the link's rate."""
SMALL_BYTES = 1500
"""One packet: pieces up to this size measure the delay."""
DELAY_WEIGHT = 0.1
"""Weight of the newest small piece in the mean delay."""
LEAST_BUSY_S = 1e-3
"""A rate is reported once the link was busy for this long."""


@kernel
def mean_delay_s(before_s: float, took_s: float) -> float:
    """Exponential mean of delays; `before_s` is 0 for the first."""
    return took_s if before_s == 0.0 else before_s + DELAY_WEIGHT * (took_s - before_s)


@kernel
def fade(passed_s: float) -> float:
    """Weight of a sample that is `passed_s` seconds old."""
    return math.exp2(-passed_s / MEMORY_S)


@kernel
def observe(meter: Record, entered_s: float, left_s: float, arrived_s: float, size_bytes: float) -> None:
    """A piece was handed over, had left the near end, and could be read at the far one. In order of arrival."""
    if size_bytes <= SMALL_BYTES:
        meter.mean_delay_s = mean_delay_s(meter.mean_delay_s, arrived_s - entered_s)
    before_s = meter.last_left_s
    meter.last_left_s = left_s
    # Only a piece that waited behind another shows the rate: the first after a rest may ride on saved-up tokens.
    if entered_s + LEAST_WAIT_S < before_s < left_s:
        weight = fade(left_s - meter.counted_s)
        meter.kept_bytes = weight * meter.kept_bytes + size_bytes
        meter.kept_busy_s = weight * meter.kept_busy_s + left_s - before_s
        meter.counted_s = left_s


@kernel
def measured_bytes_per_s(meter: Record) -> float:
    """Bytes that left per second in which something waited to leave; 0 where nothing ever waited."""
    return float(meter.kept_bytes / meter.kept_busy_s) if meter.kept_busy_s >= LEAST_BUSY_S else 0.0


@dataclass(slots=True)
class DirectionMeter:
    """One direction: a METER record for `observe`."""

    mean_delay_s: float = 0.0
    """Mean time that small pieces take from end to end, waiting included; 0 before the first."""
    kept_bytes: float = 0.0
    kept_busy_s: float = 0.0
    last_left_s: float = -math.inf
    counted_s: float = -math.inf

    def observe(self, entered_s: float, left_s: float, arrived_s: float, size_bytes: float) -> None:
        """See `observe`."""
        observe(self, entered_s, left_s, arrived_s, size_bytes)

    @property
    def bytes_per_s(self) -> float:
        """See `measured_bytes_per_s`."""
        return measured_bytes_per_s(self)
