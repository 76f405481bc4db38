"""Percentiles of durations: exact, or from a histogram whose memory does not grow. Both use the nearest rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from skyshore.report.statistics import Values, nearest_rank

SMALLEST_S = 1e-5
LARGEST_S = 1e5
STEP = 1.005
"""Ratio of the two borders of one bin: any percentile is right within half a percent."""
LOG_STEP = math.log(STEP)
BINS = math.ceil(math.log(LARGEST_S / SMALLEST_S) / LOG_STEP) + 2


class Distribution(Protocol):
    """Durations in seconds."""

    @property
    def count(self) -> int:
        """Durations added."""
        ...

    def add(self, seconds: Sequence[float]) -> None:
        """Count durations."""
        ...

    def percentile_s(self, q: float, of: int | None = None) -> float:
        """The `q`-th percentile by nearest rank; not a number if there are no values.

        `of`: number of values, at least `count`; those that were not added are infinite.
        """
        ...


class ExactDistribution:
    """Keeps every duration."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    @property
    def count(self) -> int:
        """Durations added."""
        return len(self._seconds)

    def add(self, seconds: Sequence[float]) -> None:
        """Count durations."""
        self._seconds += seconds

    def percentile_s(self, q: float, of: int | None = None) -> float:
        """See `Distribution`."""
        total = self.count if of is None else of
        rank = nearest_rank(q, total)
        if not total or rank > self.count:
            return math.inf if total else math.nan
        self._seconds.sort()
        return self._seconds[rank - 1]


class LogHistogram:
    """Counts durations in bins of equal ratio; a percentile is the middle of its bin."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, dtype=np.int64)

    @property
    def count(self) -> int:
        """Durations added."""
        return int(self._counts.sum())

    def add(self, seconds: Sequence[float] | Values) -> None:
        """Count durations; what lies outside 10 µs to 10⁵ s is counted at the border."""
        known = np.maximum(np.asarray(seconds, dtype=np.float64), SMALLEST_S)
        places = np.ceil(np.log(known / SMALLEST_S) / LOG_STEP).astype(np.int64)
        self._counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def percentile_s(self, q: float, of: int | None = None) -> float:
        """See `Distribution`."""
        total = self.count if of is None else of
        rank = nearest_rank(q, total)
        if not total or rank > self.count:
            return math.inf if total else math.nan
        return self.value_s(rank)

    def value_s(self, rank: int) -> float:
        """The `rank`-th of the values in ascending order, counted from 1 and at most `count`."""
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(SMALLEST_S * STEP ** (place - 0.5))
