"""Round robin: one arm after the other, blind to load and speed."""

from __future__ import annotations

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import Arms, Context, Decision, Formula, Policy


class RoundRobin(Policy):
    """Takes the next eligible arm after the last one chosen, per kind of task."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._last: dict[TaskKind, int] = {}

    def formula(self) -> Formula:
        """See Policy."""
        return Formula("round_robin", self._rng)

    def select(self, context: Context, arms: Arms) -> Decision:
        """Next row of the table, wrapping round."""
        kind = context.task.kind
        index = int(np.searchsorted(arms.rows, self._last.get(kind, -1) + 1)) % len(arms)
        self._last[kind] = int(arms.rows[index])
        return Decision(index)
