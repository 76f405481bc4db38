"""Greedy on one estimate: shortest expected delay, or least energy. What the estimates alone are worth."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Arms, Context, Decision, Formula, Policy


class ShortestExpectedDelay(Policy):
    """Smallest estimated latency: transmission, queue and service together."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""
        self._rng = rng

    def formula(self) -> Formula:
        """See Policy."""
        return Formula("shortest_delay", self._rng)

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is minus the latency in seconds."""
        return Decision(int(arms.latency_s.argmin()), scores=-arms.latency_s)


class GreedyEnergy(Policy):
    """Smallest estimated joules, whatever the deadline: one end of the scale that other policies trade against."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""
        self._rng = rng

    def formula(self) -> Formula:
        """See Policy."""
        return Formula("greedy_energy", self._rng)

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is minus the joules."""
        return Decision(int(arms.joules.argmin()), scores=-arms.joules)
