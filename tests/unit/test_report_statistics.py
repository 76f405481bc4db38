"""Intervals over seeds cover what they promise, pairs are compared pair by pair, effect sizes agree with the books."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.report import statistics
from skyshore.report.statistics import hedges_g, mean_interval, paired_difference

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 19, 40])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_the_t_quantile_agrees_with_scipy(freedom: int, probability: float) -> None:
    peer = pytest.importorskip("scipy.stats", reason="scipy is not installed: pip install 'scipy>=1.15'")
    assert statistics._t_quantile(probability, freedom) == pytest.approx(peer.t.ppf(probability, freedom), rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10, 20])
def test_nineteen_in_twenty_intervals_hold_the_true_mean(count: int) -> None:
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(600):
        low, high = mean_interval(rng.normal(3.0, 2.0, count), rng, resamples=2000)
        held += low <= 3.0 <= high
    # For five values the plain percentile bootstrap holds it in about 83 % of the cases, and for two in half of them.
    assert 0.92 <= held / 600 <= 0.98


@given(values)
def test_a_bootstrap_interval_lies_within_the_values(sample: list[float]) -> None:
    low, high = mean_interval(sample, np.random.default_rng(0), resamples=500)
    slack = 1e-9 * max(1.0, *map(abs, sample))
    assert low <= high
    if len(sample) >= statistics.FEWEST_RESAMPLED:
        assert min(sample) - slack <= low <= high <= max(sample) + slack
    else:
        assert low <= np.mean(sample) <= high, "Student's interval lies around the mean"


@settings(max_examples=40)
@given(values, st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3), st.floats(0.01, 100))
def test_an_interval_moves_and_stretches_with_its_values(sample: list[float], shift: float, factor: float) -> None:
    one = mean_interval(sample, np.random.default_rng(4), resamples=300)
    other = mean_interval([shift + factor * value for value in sample], np.random.default_rng(4), resamples=300)
    assert other == pytest.approx([shift + factor * edge for edge in one], rel=1e-6, abs=1e-6)


def test_an_interval_of_one_value_or_of_failures_is_not_a_number() -> None:
    for sample in ([1.0], [], [1.0, math.inf, 2.0]):
        assert all(math.isnan(edge) for edge in mean_interval(sample, np.random.default_rng(0)))


def test_what_the_seeds_share_falls_out_of_a_paired_difference() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(100, 30, 20)
    first, second = hard + rng.normal(0, 0.5, 20), hard + 1 + rng.normal(0, 0.5, 20)
    paired = paired_difference(first, second, rng)
    assert paired.distinguishable and 0.5 < paired.low < 1 < paired.high < 1.5
    assert (paired.pairs, paired.larger + paired.smaller) == (20, 20)
    alone = [mean_interval(each, rng) for each in (first, second)]
    assert alone[0][1] > alone[1][0], "unpaired, the two could not be told apart"


@given(values)
def test_equal_runs_are_not_distinguishable(sample: list[float]) -> None:
    same = paired_difference(sample, sample, np.random.default_rng(0))
    assert (same.mean, same.low, same.high, same.hedges_g) == (0, 0, 0, 0)
    assert not same.distinguishable


@given(values, values)
def test_turned_round_a_difference_changes_its_sign(first: list[float], second: list[float]) -> None:
    count = min(len(first), len(second))
    there = paired_difference(first[:count], second[:count], np.random.default_rng(1))
    back = paired_difference(second[:count], first[:count], np.random.default_rng(1))
    assert back.mean == pytest.approx(-there.mean)
    assert back.hedges_g == pytest.approx(-there.hedges_g)
    assert (back.larger, back.smaller) == (there.smaller, there.larger)


def test_hedges_g_of_a_known_case() -> None:
    # Means 3 and 5, both variances 2.5: d = 2 / sqrt(2.5); correction 1 - 3 / (4 * 10 - 9).
    assert hedges_g([1, 2, 3, 4, 5], [3, 4, 5, 6, 7]) == pytest.approx(2 / math.sqrt(2.5) * (1 - 3 / 31))
    assert hedges_g([1.0, 1.0], [2.0, 2.0]) == math.inf
    assert math.isnan(hedges_g([1.0], [2.0]))


def test_values_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
        paired_difference([1.0, 2.0], [1.0], np.random.default_rng(0))
