"""Deliberately bad policies. A metric that does not suffer under them measures nothing."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Arms, Context, Decision, Policy


class Busiest(Policy):
    """Always the fullest node that still admits a task."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is the load share."""
        share = arms.load / arms.capacity
        return Decision(int(share.argmax()), scores=share)


class Slowest(Policy):
    """Always the longest estimated latency: where the deadline is surest to be missed, a dead node if there is one."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score is the latency in seconds."""
        return Decision(int(arms.latency_s.argmax()), scores=arms.latency_s)
