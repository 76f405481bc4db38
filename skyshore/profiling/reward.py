"""From a measured outcome to joules, slack and reward (PerLLM, arXiv 2405.14636, after the digest 1.2 to 1.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.outcome import Outcome, OutcomeStatus


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """ω of the three energies and λ of the constraint term. The paper's values are not known to us; ours are 1."""

    transmission: float = 1.0
    inference: float = 1.0
    idle: float = 1.0
    constraint: float = 1.0
    """λ."""


def weighted_joules(outcome: Outcome, weights: RewardWeights) -> float:
    """ω_tran·E_tran + ω_infer·E_infer + ω_idle·E_idle, in joules, all measured."""
    worker = outcome.worker
    return (
        weights.transmission * outcome.transmission_joules
        + weights.inference * worker.inference_joules
        + weights.idle * worker.idle_joules
    )


def measured_slack(answered: bool, latency_s: float, deadline_s: float, resource_slack: float) -> float:
    """Digest eq. 3: least of the deadline's measured slack and the resources' at dispatch; −1 for a failure.

    The deadline's is the share of its seconds left over, not below −1.
    """
    return min(max((deadline_s - latency_s) / deadline_s, -1.0), resource_slack) if answered else -1.0


def common_reward(joules: float, reference_joules: float, slack: float, weight: float) -> float:
    """R = −E / E_ref + λ·f; see `RewardModel`."""
    return -min(joules / reference_joules, 2.0) + weight * slack


class RunningQuantile:
    """Quantile of the last `window` values, refreshed every `window // 8`: a slowly moving yardstick.

    Until the first value it is 1.
    """

    def __init__(self, quantile: float = 0.95, window: int = 256) -> None:
        self._quantile = quantile
        self._values: deque[float] = deque(maxlen=window)
        self._stride = max(window // 8, 1)
        self._seen = 0
        self.value = 1.0

    def observe(self, value: float) -> None:
        """Take in one value."""
        self._values.append(value)
        self._seen += 1
        if self._seen < self._stride or self._seen % self._stride == 0:
            self.value = quantile(sorted(self._values), self._quantile) or 1.0


def quantile(ascending: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """Linear interpolation between order statistics, as numpy's default has it, without the price of a numpy call."""
    place = share * (len(ascending) - 1)
    below = int(place)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    rest = place - below
    return low + (high - low) * rest if rest < 0.5 else high - (high - low) * (1.0 - rest)


class RewardModel:
    """r = −E / E_ref + λ·f, with E the weighted joules and E_ref the running 95th percentile of them.

    E / E_ref is cut at 2, so that one outlier cannot swamp an arm's mean; r lies in [−2 − λ, λ].
    """

    def __init__(self, weights: RewardWeights | None = None) -> None:
        self._weights = weights or RewardWeights()
        self._reference = RunningQuantile()

    def reward(self, outcome: Outcome, resource_slack: float) -> float:
        """Reward of one outcome; the yardstick moves with it."""
        joules = weighted_joules(outcome, self._weights)
        if outcome.status is OutcomeStatus.OK and joules > 0:
            self._reference.observe(joules)
        answered = outcome.status is OutcomeStatus.OK
        slack = measured_slack(answered, outcome.latency_s, outcome.deadline_s, resource_slack)
        return common_reward(joules, self._reference.value, slack, self._weights.constraint)
