"""Uniformly random: the baseline to beat, and good data for off-policy evaluation."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Arms, Context, Decision, Policy


class RandomChoice(Policy):
    """Every eligible arm has the same probability."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def select(self, context: Context, arms: Arms) -> Decision:
        """Draw one row."""
        return Decision(int(self._rng.integers(len(arms))), propensity=1.0 / len(arms))
