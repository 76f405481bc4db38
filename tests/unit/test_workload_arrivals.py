"""Arrival processes have the rate, the burstiness and the determinism they are named for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.workload import arrival_processes as arrivals
from skyshore.workload.lengths import lognormal_tokens
from skyshore.workload.load_statistics import load_statistics

Process = Callable[[float, np.random.Generator], arrivals.Times]

PROCESSES: dict[str, Process] = {
    "poisson": lambda duration_s, rng: arrivals.poisson(5.0, duration_s, rng),
    "bursty gamma": lambda duration_s, rng: arrivals.gamma(5.0, 3.0, duration_s, rng),
    "regular gamma": lambda duration_s, rng: arrivals.gamma(5.0, 0.2, duration_s, rng),
    "on/off": lambda duration_s, rng: arrivals.on_off(5.0, 2.0, 6.0, duration_s, rng),
    "diurnal": lambda duration_s, rng: arrivals.diurnal(5.0, 0.8, 10.0, duration_s, rng),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


@each_process
@given(seed=st.integers(0, 2**32), duration_s=st.floats(0.1, 60))
@settings(max_examples=30, deadline=None)
def test_times_are_sorted_inside_the_window_and_fixed_by_the_seed(
    process: Process, seed: int, duration_s: float
) -> None:
    times = process(duration_s, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration_s))
    assert np.array_equal(times, process(duration_s, np.random.default_rng(seed)))


@each_process
def test_mean_count_is_rate_times_duration_even_in_short_windows(process: Process) -> None:
    # 20 s is two diurnal periods; a renewal process begun at an arrival would be off by (cv² - 1) / 2 = 4 here.
    counts = [len(process(20.0, np.random.default_rng(seed))) for seed in range(2000)]
    standard_error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - 100.0) < 4 * standard_error


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_gaps_have_the_asked_variation_and_no_memory(cv: float) -> None:
    times = arrivals.gamma(10.0, cv, 3000.0, np.random.default_rng(7))
    statistics = load_statistics(list(times), 3000.0)
    assert statistics.gap_cv == pytest.approx(cv, rel=0.06)
    assert abs(statistics.gap_autocorrelation) < 0.03


def test_poisson_counts_vary_as_their_mean_and_on_off_counts_far_more() -> None:
    rng = np.random.default_rng(3)
    assert load_statistics(list(arrivals.poisson(10.0, 2000.0, rng)), 2000.0).idc_1s == pytest.approx(1, abs=0.15)
    assert load_statistics(list(arrivals.on_off(10.0, 2.0, 6.0, 2000.0, rng)), 2000.0).idc_1s > 10


def test_diurnal_load_peaks_half_a_period_in() -> None:
    times = arrivals.diurnal(50.0, 0.9, 100.0, 1000.0, np.random.default_rng(5)) % 100.0
    trough, peak = np.sum(times < 10), np.sum((times >= 45) & (times < 55))
    assert peak > 8 * trough


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: arrivals.poisson(0, 1, rng),
        lambda rng: arrivals.gamma(1, 0, 1, rng),
        lambda rng: arrivals.on_off(1, 0, 1, 1, rng),
        lambda rng: arrivals.diurnal(1, 1.5, 1, 1, rng),
        lambda rng: lognormal_tokens(0, 1, 1, rng, max_tokens=5),
    ],
)
def test_impossible_parameters_are_refused(call: Callable[[np.random.Generator], object]) -> None:
    with pytest.raises(ValueError, match="must"):
        call(np.random.default_rng(0))


def test_token_lengths_have_the_asked_mean_and_variation_and_never_pass_the_limit() -> None:
    lengths = lognormal_tokens(200, 0.8, 40_000, np.random.default_rng(1), max_tokens=100_000)
    assert lengths.mean() == pytest.approx(200, rel=0.03)
    assert lengths.std() / lengths.mean() == pytest.approx(0.8, rel=0.06)
    cut = lognormal_tokens(200, 2.0, 1000, np.random.default_rng(1), max_tokens=256)
    assert cut.min() >= 1
    assert cut.max() == 256
