"""What a policy would have achieved on the decisions of another policy: estimates from a log with propensities.

One row per decision: r is its measured value, p > 0 the probability with which the logging policy made its choice, and
m = 1 if the evaluated policy makes the same choice (drawn, if it is random), else 0. With w = m / p:

    IPS    mean(w·r)                                        Horvitz and Thompson 1952
    SNIPS  Σ w·r / Σ w                                      Swaminathan and Joachims 2015
    DR     mean(q(x, e) + w·(r − q(x, l)))                  Dudík, Langford and Li 2011

with q a model of r, e the choice of the evaluated policy and l the logged one. IPS and DR are unbiased if the logging
policy could have made every choice of the evaluated policy; q only reduces the noise of DR. Rows count as independent.
Effects of the evaluated policy on later tasks (queues, learning) are not included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

FEWEST = 30
"""Matching decisions below which no interval can be trusted."""
TWO_SIDED_95 = 1.96


@dataclass(frozen=True, slots=True)
class Estimated:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """A log beside the choices of the policy that is evaluated."""

    propensity: Floats
    """[rows], above 0."""
    matches: Booleans
    """[rows]: whether the evaluated policy chooses as the log does."""

    @property
    def weights(self) -> Floats:
        """Importance weights, m / p."""
        weights: Floats = self.matches / self.propensity
        return weights

    @property
    def effective_samples(self) -> float:
        """(Σ w)² / Σ w² (Kish): the number of rows of the policy's own log with the same precision."""
        squares = float((self.weights**2).sum())
        return float(self.weights.sum()) ** 2 / squares if squares else 0.0


def require_support(logged: Logged) -> None:
    """Refuse a log that cannot answer the question.

    Raises:
        InvalidTask: it has no rows, lacks propensities, was made without chance, or shares too few choices.
    """
    rows, shared = len(logged.propensity), int(logged.matches.sum())
    advice = "log with a policy that draws, such as `random`"
    if not rows:
        raise InvalidTask("the log holds no decision with its context and its outcome", param="on")
    if not ((logged.propensity > 0) & (logged.propensity <= 1)).all():
        raise InvalidTask(f"a propensity lies outside (0, 1]: the log does not say how it chose; {advice}", param="on")
    if (logged.propensity == 1).all() and not logged.matches.all():
        raise InvalidTask(
            f"the log was made without chance, so it says nothing of the {rows - shared} choices that would differ; "
            f"{advice}",
            param="on",
        )
    if shared < FEWEST:
        raise InvalidTask(
            f"only {shared} of {rows} logged choices are those of this policy, {FEWEST} are the least; log more, or "
            f"{advice}",
            param="on",
        )


def ips(logged: Logged, outcome: Floats) -> Estimated:
    """Inverse propensity scoring."""
    return _mean(logged.weights * outcome)


def snips(logged: Logged, outcome: Floats) -> Estimated:
    """Self-normalised; its interval is the delta method's. Slightly biased, far less noisy when weights vary."""
    weights = logged.weights
    value = float((weights * outcome).sum() / weights.sum())
    spread = _mean(weights * (outcome - value) / weights.mean())
    return Estimated(value, value + spread.low - spread.value, value + spread.high - spread.value)


def doubly_robust(logged: Logged, outcome: Floats, predicted_logged: Floats, predicted_chosen: Floats) -> Estimated:
    """`predicted_…`: q of the logged choice and of the choice in question, fitted on other rows (`cross_fitted`)."""
    return _mean(predicted_chosen + logged.weights * (outcome - predicted_logged))


def cross_fitted(logged_features: Floats, chosen_features: Floats, outcome: Floats) -> tuple[Floats, Floats]:
    """Model q of both choices: ridge regression of one half of the rows, read off on the other half.

    Features are [rows, features]; a constant is added.
    """
    scale = np.maximum(np.abs(logged_features).max(axis=0, initial=0.0), 1e-12)
    logged, chosen = (_with_constant(features / scale) for features in (logged_features, chosen_features))
    predicted_logged, predicted_chosen = np.zeros(len(outcome)), np.zeros(len(outcome))
    even = np.arange(len(outcome)) % 2 == 0
    for fit in (even, ~even):
        gram = logged[fit].T @ logged[fit] + np.eye(logged.shape[1])
        weights = np.linalg.solve(gram, logged[fit].T @ outcome[fit])
        predicted_logged[~fit], predicted_chosen[~fit] = logged[~fit] @ weights, chosen[~fit] @ weights
    return predicted_logged, predicted_chosen


def _with_constant(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _mean(values: Floats) -> Estimated:
    value = float(values.mean())
    half = TWO_SIDED_95 * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return Estimated(value, value - half, value + half)
