"""Statistics of a stream of arrivals, to compare a schedule with what a replay sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """Rate and burstiness. A Poisson process has `gap_cv` 1, `idc_1s` 1 and `gap_autocorrelation` 0."""

    count: int
    rate_per_s: float
    gap_cv: float
    """Coefficient of variation of the times between arrivals; nan with fewer than 3 arrivals."""
    gap_autocorrelation: float
    """Correlation of each gap with the next; nan with fewer than 4 arrivals or with constant gaps."""
    idc_1s: float
    """Index of dispersion: variance over mean of the counts per second; nan with fewer than 2 whole seconds."""
    longest_gap_s: float


def load_statistics(times_s: Sequence[float], duration_s: float) -> LoadStatistics:
    """Describe arrivals at sorted `times_s` within [0, duration_s)."""
    times = np.asarray(times_s, dtype=np.float64)
    gaps = np.diff(times)
    seconds = int(duration_s)
    counts = np.histogram(times, bins=seconds, range=(0, seconds))[0] if seconds >= 2 else np.empty(0)
    return LoadStatistics(
        count=len(times),
        rate_per_s=len(times) / duration_s if duration_s > 0 else 0.0,
        gap_cv=float(gaps.std() / gaps.mean()) if len(gaps) >= 2 and gaps.mean() > 0 else float("nan"),
        gap_autocorrelation=_lag_1(gaps),
        idc_1s=float(counts.var() / counts.mean()) if counts.any() else float("nan"),
        longest_gap_s=float(gaps.max()) if len(gaps) else 0.0,
    )


def _lag_1(gaps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    if len(gaps) < 3 or np.ptp(gaps[:-1]) == 0 or np.ptp(gaps[1:]) == 0:
        return float("nan")
    return float(np.corrcoef(gaps[:-1], gaps[1:])[0, 1])
