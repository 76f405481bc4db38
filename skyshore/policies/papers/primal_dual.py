"""Primal–dual linear contextual bandit: learns joules per arm; prices missed deadlines and low quality per class.

Ports: linear bandits with knapsacks (Agrawal and Devanur, 2016) in the form of ParetoBandit (arXiv 2604.00136, digest
4.2 row 3). Each arm has ridge regressions with geometric forgetting, with optimistic bounds for every target. Each
constraint has one dual variable, which moves by projected subgradient steps:

    a = argmin LCB(joules) / J̄ + λ_k·LCB(miss) + μ_k·LCB(shortfall),    λ_k ← [λ_k + η·(missed − α)] in 0..Λ,

k is the service class. ParetoBandit maximises quality and limits the money spent. This port minimises joules, and
limits the share α of missed deadlines and the mean shortfall from the quality floor (row 1's covering constraints).

Our choices: x is `arm_features`. Joules are learned from complete answers only, because a task that was cut off reports
only the joules used until then. J̄ is the running mean of these joules. η = 0.05, Λ = 10, γ = 0.99, and the weight of
the confidence width is 0.3. Left out: the replacement of models during a run (the scheduler core does this) and row 1's
forecast of demand.
"""

from __future__ import annotations

import json

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.learning.arm_features import WIDTH, arm_features
from skyshore.policies.learning.ridge import RidgeModels
from skyshore.policies.learning.snapshot import join_parts, split_parts
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Floats, Policy

FORMAT = "primal_dual/1"
MOST_CLASSES = 64
"""Further classes share one pair of prices, so that a caller cannot make the table grow without bound."""
OTHERS = "(others)"
SMOOTHING = 0.02
"""Of the running mean of joules."""
MOST_RATIO = 10.0
"""Limit of joules / J̄ of one answer, so that one outlier does not ruin a regression."""


class PrimalDual(Policy):
    """Regressions of joules, misses and shortfall per arm; two prices per class."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        miss_share: float = 0.05,
        step: float = 0.05,
        largest_price: float = 10.0,
        confidence: float = 0.3,
        discount: float = 0.99,
    ) -> None:
        """The generator is not needed. `miss_share` is α, `step` η, `largest_price` Λ."""
        self._miss_share, self._step, self._largest_price = miss_share, step, largest_price
        self._confidence, self._discount = confidence, discount
        self._joules, self._failings = self._fresh(1), self._fresh(2)
        self._mean_joules = dict.fromkeys(TaskKind, 0.0)
        self._prices: dict[str, tuple[float, float]] = {}
        """Service class → λ and μ."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Take the arm of the least optimistic cost at the current prices."""
        kind, features = context.task.kind, arm_features(arms, context)
        joules = self._lower(self._joules[kind], arms, features)[:, 0]
        miss_price, quality_price = self._prices_of(context.task.service_class)
        scores = -(joules + self._lower(self._failings[kind], arms, features) @ np.array([miss_price, quality_price]))
        return Decision(int(scores.argmax()), scores=scores, features=(miss_price, quality_price))

    def update(self, feedback: Feedback) -> None:
        """Add the measured values to the regressions; move the prices of the class."""
        task, outcome = feedback.context.task, feedback.outcome
        missed = float(not outcome.met_deadline)
        judged = task.min_quality > 0 and outcome.quality > 0
        shortfall = task.min_quality - outcome.quality if judged else 0.0
        arm_id, features = feedback.arm.arm_id, arm_features(feedback.arm, feedback.context)
        self._failings[task.kind].learn(arm_id, features, np.array([missed, shortfall]))
        if outcome.status is OutcomeStatus.OK and outcome.joules > 0:
            mean = self._mean_joules[task.kind] or outcome.joules
            mean = self._mean_joules[task.kind] = mean + SMOOTHING * (outcome.joules - mean)
            self._joules[task.kind].learn(arm_id, features, np.array([min(outcome.joules / mean, MOST_RATIO)]))
        name = self._class(task.service_class)
        miss_price, quality_price = self._prices_of(name)
        self._prices[name] = (
            self._moved(miss_price, missed - self._miss_share),
            self._moved(quality_price, shortfall),
        )

    def snapshot(self) -> bytes:
        """Sums of every kind, prices and running means."""
        parts = [models.snapshot(FORMAT) for table in (self._joules, self._failings) for models in table.values()]
        parts.append(json.dumps({"prices": self._prices, "mean_joules": self._mean_joules}).encode())
        return join_parts(parts)

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        *tables, scalars = split_parts(snapshot, 2 * len(TaskKind) + 1)
        joules, failings = self._fresh(1), self._fresh(2)
        for models, part in zip([*joules.values(), *failings.values()], tables, strict=True):
            models.restore(FORMAT, part)
        try:
            content = json.loads(scalars)
            prices = {str(name): (float(pair[0]), float(pair[1])) for name, pair in content["prices"].items()}
            mean_joules = {kind: float(content["mean_joules"][kind]) for kind in TaskKind}
        except (KeyError, TypeError) as error:
            raise ValueError(f"a snapshot without {error}") from error
        self._joules, self._failings, self._prices, self._mean_joules = joules, failings, prices, mean_joules

    def _prices_of(self, service_class: str) -> tuple[float, float]:
        # The start is high: a price that is too high falls quickly, but a missed deadline stays missed.
        start = self._largest_price / 2
        return self._prices.get(self._class(service_class), (start, start))

    def _class(self, name: str) -> str:
        return name if name in self._prices or len(self._prices) < MOST_CLASSES else OTHERS

    def _moved(self, price: float, violation: float) -> float:
        return min(max(price + self._step * violation, 0.0), self._largest_price)

    def _lower(self, models: RidgeModels, arms: Arms, features: Floats) -> Floats:
        """Lower confidence bounds [arms, targets]; a bound below 0 becomes 0."""
        predicted, width = models.read(arms, features)
        bounds: Floats = np.maximum(predicted - self._confidence * width[:, None], 0.0)
        return bounds

    def _fresh(self, targets: int) -> dict[TaskKind, RidgeModels]:
        return {kind: RidgeModels(WIDTH, targets, discount=self._discount) for kind in TaskKind}
