"""CS-UCB: constraint satisfaction plus upper confidence bound, of PerLLM (arXiv 2405.14636).

From the paper, partly at second hand (the digest marks what): arms are (service class, node configuration); a scalar
f says whether all constraints hold (least normalised slack, eq. 3); among the arms that hold, the largest

    U(k, a) = R(k, a) / N(k, a) + δ·√(ln t / N(k, a)) + θ·P(a),    P = min(f, 0)

is taken, an arm never pulled counting as infinite. Reward: −E / E_ref + λ·f, both measured (`profiling.reward`).

Our choices, where we found nothing: updates come from measured outcomes, late as they are, never from the estimate;
N and R are discounted (γ); t is the discounted number of outcomes of the class; ties are broken at random; δ = 0.5,
θ = 1 (a re-implementation's grid gave δ = 0.5); when nothing holds, `infeasible` says what is done. With `slot_s` the
arrivals of a slot are placed together, nearest deadline first, each seeing the room the ones before it took: the
paper's super-arm with reservations. The core does that batching.
"""

from __future__ import annotations

import math

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.best import draw_best
from skyshore.policies.class_statistics import ClassStatistics
from skyshore.policies.constraints import deadline_slack, least_slacks, resource_slack
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Feedback, FewArms, Floats, Formula, Policy
from skyshore.policies.snapshot import join_parts, split_parts

FORMAT = "cs_ucb/1"
INFEASIBLE = ("largest_slack", "least_loaded", "reject")


class CsUcb(Policy):
    """The paper's policy and its ablations.

    `constrain` off leaves the filter out (UCB only); `explore` off leaves the bandit out (cheapest estimate among the
    arms that hold); `theta` weighs the penalty in the index, which matters only without the filter.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        delta: float = 0.5,
        theta: float = 1.0,
        discount: float = 0.999,
        constrain: bool = True,
        explore: bool = True,
        infeasible: str = "largest_slack",
        slot_s: float = 0.0,
    ) -> None:
        """Raises ValueError for a setting out of range."""
        if infeasible not in INFEASIBLE:
            raise ValueError(f"infeasible must be one of {', '.join(INFEASIBLE)}, not '{infeasible}'")
        self.slot_s = slot_s
        self._rng = rng
        self._delta, self._theta, self._discount = delta, theta, discount
        self._constrain, self._explore, self._infeasible = constrain, explore, infeasible
        self._statistics = {kind: ClassStatistics(discount) for kind in TaskKind}

    def select(self, context: Context, arms: Arms) -> Decision:
        """Filter by f, then take the largest index."""
        slack = np.minimum(deadline_slack(arms, context), resource_slack(arms, context))
        scores = self._index(context, arms, slack)
        if self._constrain:
            holds = slack >= 0
            if not holds.any():
                return self._when_nothing_holds(arms, slack)
            scores = np.where(holds, scores, -np.inf)
        return self._best(scores)

    def select_few(self, context: Context, arms: FewArms) -> Decision:
        """See Policy."""
        slack = least_slacks(arms.estimates, context)
        scores = self._index_few(context, arms, slack)
        if not self._constrain:
            return draw_best(scores, self._rng)
        if max(slack) >= 0:
            return draw_best(
                [score if left >= 0 else -math.inf for score, left in zip(scores, slack, strict=True)], self._rng
            )
        if self._infeasible == "reject":
            return self._rejection(slack)
        return draw_best(slack if self._infeasible == "largest_slack" else _minus_share(arms), self._rng)

    def update(self, feedback: Feedback) -> None:
        """Semi-bandit feedback: the reward of the arm that ran the task."""
        task = feedback.context.task
        self._statistics[task.kind].learn(task.service_class, feedback.arm.arm_id, feedback.reward)

    def formula(self) -> Formula:
        """See Policy."""
        numbers = {
            "delta": self._delta,
            "theta": self._theta,
            "discount": self._discount,
            "constrain": float(self._constrain),
            "explore": float(self._explore),
            "infeasible": float(INFEASIBLE.index(self._infeasible)),
        }
        return Formula("cs_ucb", self._rng, numbers)

    def snapshot(self) -> bytes:
        """Counts and sums of every kind."""
        return join_parts([statistics.snapshot(FORMAT) for statistics in self._statistics.values()])

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        fresh = {kind: ClassStatistics(self._discount) for kind in TaskKind}
        for statistics, part in zip(fresh.values(), split_parts(snapshot, len(fresh)), strict=True):
            statistics.restore(FORMAT, part)
        self._statistics = fresh

    def _index(self, context: Context, arms: Arms, slack: Floats) -> Floats:
        if not self._explore:
            return -arms.joules
        count, mean, total = self._statistics[context.task.kind].read(context.task.service_class, arms)
        if total <= 0:
            return np.full(len(arms), np.inf)
        seen = count > 0
        radius = np.sqrt(max(math.log(total), 0.0) / np.where(seen, count, 1.0))
        index = mean + self._delta * radius + self._theta * np.minimum(slack, 0.0)
        return np.where(seen, index, np.inf)

    def _index_few(self, context: Context, arms: FewArms, slack: list[float]) -> list[float]:
        if not self._explore:
            return [-arm.joules for arm in arms.estimates]
        counts, means, total = self._statistics[context.task.kind].read_few(context.task.service_class, arms)
        if total <= 0:
            return [math.inf] * len(slack)
        log_total, delta, theta = max(math.log(total), 0.0), self._delta, self._theta
        return [
            confidence_index(mean, count, log_total, left, delta, theta) if count > 0 else math.inf
            for count, mean, left in zip(counts, means, slack, strict=True)
        ]

    def _rejection(self, slack: Floats | list[float]) -> Decision:
        return Decision(REFUSED, scores=slack, reason="no arm would keep the deadline", passing=True)

    def _when_nothing_holds(self, arms: Arms, slack: Floats) -> Decision:
        if self._infeasible == "reject":
            return self._rejection(slack)
        return self._best(slack if self._infeasible == "largest_slack" else -arms.load / arms.capacity)

    def _best(self, scores: Floats) -> Decision:
        best = np.flatnonzero(scores == scores.max())
        index = int(best[0]) if len(best) == 1 else int(best[self._rng.integers(len(best))])
        return Decision(index, 1.0 / len(best), scores)


def confidence_index(mean: float, count: float, log_total: float, slack: float, delta: float, theta: float) -> float:  # noqa: PLR0917 - numba takes them so
    """U(k, a) of an arm that was pulled."""
    return mean + delta * math.sqrt(log_total / count) + theta * (slack if slack < 0 else 0.0)


def _minus_share(arms: FewArms) -> list[float]:
    return [-load / capacity for load, capacity in zip(arms.load, arms.capacity, strict=True)]
