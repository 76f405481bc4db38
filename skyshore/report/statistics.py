"""Exact percentiles and the sample each needs; intervals over time, over seeds, and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
FEWEST_RESAMPLED = 6


def percentile(values: Sequence[float] | Values, q: float) -> float:
    """The smallest value that at least `q` per cent of all values do not exceed; nan of nothing.

    An order statistic, never an interpolation: infinite values (failures) take part without spreading.

    Raises:
        ValueError: `q` is not above 0 and at most 100.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    rank = nearest_rank(q, len(ordered))
    return float(ordered[rank - 1]) if len(ordered) else math.nan


def nearest_rank(q: float, count: int) -> int:
    """Place, from 1, of the `q`-th percentile among `count` values in ascending order: ceil(q / 100 · count).

    Raises:
        ValueError: `q` is not above 0 and at most 100.
    """
    if not 0 < q <= 100:
        raise ValueError(f"q must lie in 0..100, above 0, not {q}")
    return max(1, math.ceil(round(q / 100 * count, 9)))  # 7 % of 100 is 7, not 7.000000000000001


def minimum_samples(q: float, confidence: float = 0.99) -> int:
    """Samples needed to estimate the `q`-th percentile: n with (q/100)^n ≤ 1 − confidence (459 for p99).

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

    Blocks of n^(1/3) values keep the correlation of neighbours: requests in one queue are late together. nan
    without values.
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


def mean_interval(
    values: Sequence[float] | Values, rng: np.random.Generator, *, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Interval of the mean of independent values, such as one figure over several seeds; nan of fewer than two.

    The expanded percentile bootstrap (Hesterberg 2015, "What teachers should know about the bootstrap"): a plain one is
    too narrow for few values, so its tails are moved out to where Student's t and n / (n - 1) put them. Of fewer than
    `FEWEST_RESAMPLED` values no resampling reaches far enough, and the interval is Student's.
    """
    sample = np.asarray(values, dtype=np.float64)
    count = len(sample)
    if count < 2 or not np.isfinite(sample).all():
        return math.nan, math.nan
    if count < FEWEST_RESAMPLED:
        margin = _t_quantile((1 + level) / 2, count - 1) * float(sample.std(ddof=1)) / math.sqrt(count)
        return float(sample.mean()) - margin, float(sample.mean()) + margin
    means = sample[rng.integers(count, size=(resamples, count))].mean(axis=1)
    tail = _expanded_tail((1 - level) / 2, count)
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def hedges_g(first: Sequence[float] | Values, second: Sequence[float] | Values) -> float:
    """Standardised difference of means, second minus first, corrected for few values (Hedges 1981).

    Over the root of the mean of both variances. Infinite where only the means differ; nan of fewer than two.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(one), len(other)) < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return math.nan
    difference = float(other.mean() - one.mean())
    spread = math.sqrt((float(one.var(ddof=1)) + float(other.var(ddof=1))) / 2)
    # Differences below the precision of a float count as zero.
    if abs(difference) <= 1e-12 * max(abs(float(one.mean())), abs(float(other.mean()))):
        return 0.0
    if spread == 0:
        return math.copysign(math.inf, difference)
    return difference / spread * (1 - 3 / (4 * (len(one) + len(other)) - 9))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How far `second` lies from `first` where both were measured on the same seeds."""

    mean: float
    """Of second minus first."""
    low: float
    high: float
    """95 % interval of the mean."""
    hedges_g: float
    larger: int
    smaller: int
    pairs: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Sequence[float] | Values, second: Sequence[float] | Values, rng: np.random.Generator
) -> PairedDifference:
    """Compare pair by pair; what all seeds share (an easy or a hard schedule) falls out of the interval.

    Raises:
        ValueError: not as many of one as of the other.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} values cannot be paired with {len(other)}")
    larger, smaller = int((other > one).sum()), int((other < one).sum())
    if not (np.isfinite(one).all() and np.isfinite(other).all()) or not len(one):
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, larger, smaller, len(one))
    differences = other - one
    low, high = mean_interval(differences, rng)
    return PairedDifference(float(differences.mean()), low, high, hedges_g(one, other), larger, smaller, len(one))


def _expanded_tail(tail: float, count: int) -> float:
    """The share of the bootstrap distribution to cut off so that the interval covers as `tail` promises."""
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * _t_quantile(1 - tail, count - 1))


def _t_quantile(probability: float, freedom: int) -> float:
    """Student's t, by bisection; `probability` above one half."""
    low, high = 0.0, 1e3
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < probability else (low, middle)
    return high


def _t_cdf(t: float, freedom: int) -> float:
    """Closed form for a whole number of degrees of freedom (Abramowitz, Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    if freedom == 1:
        total = 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inside / 2
