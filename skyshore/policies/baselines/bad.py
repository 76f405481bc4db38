"""Deliberately bad policies, to test metrics: a useful metric must be worse under them."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Arms, Context, Decision, Policy
from skyshore.rules.choose import load_share


class Busiest(Policy):
    """Takes the fullest node that still admits a task."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is the load share."""
        share = load_share(arms.load, arms.capacity)
        return Decision(int(share.argmax()), scores=share)


class Slowest(Policy):
    """Takes the arm of the longest estimated latency, so that deadlines are missed."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is the latency in seconds."""
        return Decision(int(arms.latency_s.argmax()), scores=arms.latency_s)
