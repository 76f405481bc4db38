"""LinUCB with disjoint linear models: a contextual bandit with no constraints (Li, Chu, Langford and Schapire, 2010).

Ports: the index of algorithm 1 there,

    U(a) = θ_aᵀ·x_a + α·√(x_aᵀ·A_a⁻¹·x_a),    θ_a = A_a⁻¹·b_a,    A_a = λI + Σ x·xᵀ,    b_a = Σ x·r,

where r is the common reward. `constrain` adds a latency filter, as in GreenServ (arXiv 2601.17551, digest 4.2 row 5):
if some arms can meet the deadline by their estimates, the others are left out.

Our choices: x is `arm_features`. The past is discounted by γ = 0.999 per outcome of the arm, because queues are not
stationary. Rewards are measured, so they come late. Ties go to the first arm. Left out: GreenServ's clusters of prompt
embeddings, because a policy never sees the prompt.
"""

from __future__ import annotations

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.learning.arm_features import WIDTH, arm_features
from skyshore.policies.learning.ridge import RidgeModels
from skyshore.policies.learning.snapshot import join_parts, split_parts
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Policy
from skyshore.rules.slack import deadline_slack

FORMAT = "linucb/1"


class LinUcb(Policy):
    """One ridge regression per arm and kind of task."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        alpha: float = 0.5,
        prior: float = 1.0,
        discount: float = 0.999,
        constrain: bool = False,
    ) -> None:
        """The generator is not needed. Raises ValueError for a setting out of range."""
        self._alpha, self._prior, self._discount, self._constrain = alpha, prior, discount, constrain
        self._models = self._fresh()

    def select(self, context: Context, arms: Arms) -> Decision:
        """Largest upper confidence bound."""
        predicted, width = self._models[context.task.kind].read(arms, arm_features(arms, context))
        scores = predicted[:, 0] + self._alpha * width
        if self._constrain:
            holds = deadline_slack(arms.latency_s, context.remaining_s) >= 0
            if holds.any():
                scores = np.where(holds, scores, -np.inf)
        return Decision(int(scores.argmax()), scores=scores)

    def update(self, feedback: Feedback) -> None:
        """Add the reward, with the features at the time of the choice, to the arm's regression."""
        features = arm_features(feedback.arm, feedback.context)
        models = self._models[feedback.context.task.kind]
        models.learn(feedback.arm.arm_id, features, np.array([feedback.reward]))

    def snapshot(self) -> bytes:
        """Sums of every kind."""
        return join_parts([models.snapshot(FORMAT) for models in self._models.values()])

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        fresh = self._fresh()
        for models, part in zip(fresh.values(), split_parts(snapshot, len(fresh)), strict=True):
            models.restore(FORMAT, part)
        self._models = fresh

    def _fresh(self) -> dict[TaskKind, RidgeModels]:
        return {kind: RidgeModels(WIDTH, 1, prior=self._prior, discount=self._discount) for kind in TaskKind}
