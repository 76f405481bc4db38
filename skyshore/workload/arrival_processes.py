"""Arrival processes: times in [0, duration_s) as a sorted array, in seconds. All random numbers come from `rng`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def poisson(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> Times:
    """Poisson process: many independent users."""
    return gamma(rate_per_s, 1.0, duration_s, rng)


def gamma(rate_per_s: float, cv: float, duration_s: float, rng: np.random.Generator) -> Times:
    """Renewal process with gamma gaps of coefficient of variation `cv`: above 1 bursty, below 1 regular.

    The first gap is drawn from the equilibrium distribution, U · Gamma(k + 1, θ): the window is a part of an endless
    process, and its mean count is exactly rate × duration.
    """
    _require(rate_per_s > 0, "rate_per_s must be above 0")
    _require(cv > 0, "cv must be above 0")
    shape, scale = 1 / cv**2, cv**2 / rate_per_s
    times = np.array([rng.random() * rng.gamma(shape + 1, scale)])
    block = max(16, math.ceil(rate_per_s * duration_s * 1.2))
    while times[-1] < duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.gamma(shape, scale, block))])
    return times[times < duration_s]


def on_off(
    rate_per_s: float, mean_on_s: float, mean_off_s: float, duration_s: float, rng: np.random.Generator
) -> Times:
    """Poisson while on, silent while off; both phases are exponential and start in the stationary state.

    `rate_per_s` is the mean over on and off phases.
    """
    _require(rate_per_s > 0, "rate_per_s must be above 0")
    _require(mean_on_s > 0 and mean_off_s > 0, "mean_on_s and mean_off_s must be above 0")
    rate_on_per_s = rate_per_s * (mean_on_s + mean_off_s) / mean_on_s
    on = rng.random() < mean_on_s / (mean_on_s + mean_off_s)
    now_s, phases = 0.0, [np.empty(0)]
    while now_s < duration_s:
        length_s = min(rng.exponential(mean_on_s if on else mean_off_s), duration_s - now_s)
        if on and length_s > 0:
            phases.append(now_s + poisson(rate_on_per_s, length_s, rng))
        now_s, on = now_s + length_s, not on
    return np.concatenate(phases)


def diurnal(
    mean_rate_per_s: float, amplitude: float, period_s: float, duration_s: float, rng: np.random.Generator
) -> Times:
    """Poisson with rate mean · (1 − amplitude · cos(2πt / period)), from minimum to maximum and back; by thinning."""
    _require(0 <= amplitude <= 1, "amplitude must lie in 0..1")
    _require(period_s > 0, "period_s must be above 0")
    candidates = poisson(mean_rate_per_s * (1 + amplitude), duration_s, rng)
    share = (1 - amplitude * np.cos(2 * np.pi * candidates / period_s)) / (1 + amplitude)
    return candidates[rng.random(len(candidates)) < share]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
