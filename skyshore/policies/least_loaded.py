"""Least loaded: the node with the smallest share of its capacity taken. What most load balancers do."""

from __future__ import annotations

import numpy as np

from skyshore.policies.best import draw_best
from skyshore.policies.protocol import Arms, Context, Decision, FewArms, Formula, Policy


class LeastLoaded(Policy):
    """Smallest load / capacity; ties are broken at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is minus the load share."""
        scores = -arms.load / arms.capacity
        best = np.flatnonzero(scores == scores.max())
        return Decision(int(best[self._rng.integers(len(best))]), 1.0 / len(best), scores)

    def formula(self) -> Formula:
        """See Policy."""
        return Formula("least_loaded", self._rng)

    def select_few(self, context: Context, arms: FewArms) -> Decision:
        """See Policy."""
        scores = [-load / capacity for load, capacity in zip(arms.load, arms.capacity, strict=True)]
        return draw_best(scores, self._rng)
