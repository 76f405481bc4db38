"""Exact percentiles, the sample each needs, and bootstrap intervals for figures measured one after another in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def percentile(values: Sequence[float] | Values, q: float) -> float:
    """The smallest value that at least `q` per cent of all values do not exceed; nan of nothing.

    An order statistic, never an interpolation: infinite values (failures) take part without spreading.
    """
    if not 0 < q <= 100:
        raise ValueError(f"q must lie in 0..100, above 0, not {q}")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered):
        return math.nan
    return float(ordered[max(0, math.ceil(round(q / 100 * len(ordered), 9)) - 1)])


def minimum_samples(q: float, confidence: float = 0.99) -> int:
    """Samples from which the `q`-th percentile can be told: n with (q/100)^n ≤ 1 − confidence (459 for p99).

    Below it, a run without a single value past the true percentile is likelier than 1 − confidence.
    """
    return math.ceil(math.log(1 - confidence) / math.log(q / 100))


def bootstrap_interval(
    values: Sequence[float] | Values,
    statistic: Callable[[Values], float],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Interval of `statistic` by the circular block bootstrap (Politis, Romano 1992) over values in order of time.

    Blocks of n^(1/3) values keep what neighbours share: requests in one queue are late together. nan of nothing.
    """
    series = np.asarray(values, dtype=np.float64)
    count = len(series)
    if not count:
        return math.nan, math.nan
    block = max(1, round(count ** (1 / 3)))
    blocks = math.ceil(count / block)
    estimates = np.empty(resamples)
    for index in range(resamples):
        starts = rng.integers(count, size=blocks)
        places = (starts[:, None] + np.arange(block)).ravel()[:count] % count
        estimates[index] = statistic(series[places])
    tail = 50 * (1 - level)
    return percentile(estimates, tail), percentile(estimates, 100 - tail)
