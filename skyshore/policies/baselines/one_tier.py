"""Edge only and cloud only: the baselines without collaboration between the tiers."""

from __future__ import annotations

import numpy as np

from skyshore.domain.node import Tier
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Policy
from skyshore.rules.choose import load_share


class OneTier(Policy):
    """Least loaded within one tier; refuses when that tier has no eligible arm."""

    def __init__(self, rng: np.random.Generator, *, tier: Tier) -> None:
        self._rng = rng
        self._tier = tier

    def select(self, context: Context, arms: Arms) -> Decision:
        """Arms of the other tier score minus infinity."""
        allowed = arms.is_cloud if self._tier is Tier.CLOUD else ~arms.is_cloud
        if not allowed.any():
            return Decision(REFUSED, reason=f"no {self._tier.value} arm can take it, and this policy uses no other")
        scores = np.where(allowed, -load_share(arms.load, arms.capacity), -np.inf)
        best = np.flatnonzero(scores == scores.max())
        return Decision(int(best[self._rng.integers(len(best))]), 1.0 / len(best), scores)
