"""Round robin: one arm after the other; load and speed are ignored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.rules.choose import select_arm
from skyshore.rules.kernel import implement
from skyshore.rules.records import KINDS, NONE, Integers, Options, Record, integers


class RoundRobinState(NamedTuple):
    """What was chosen last."""

    last: Integers
    """[kinds] row of the arm in its table, NONE at first."""


@implement(select_arm, RoundRobinState)
def select_next(state: RoundRobinState, demand: Record, options: Options) -> None:
    """Next row of the table, wrapping round."""
    decision, chosen = options.decision[0], 0
    for index in range(decision.count):
        if options.estimates[index].row > state.last[demand.kind]:
            chosen = index
            break
    state.last[demand.kind] = options.estimates[chosen].row
    decision.index = chosen


class RoundRobin(KernelPolicy):
    """Takes the next eligible arm after the last one chosen, per kind of task."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: nothing is drawn."""
        super().__init__()
        self.state = RoundRobinState(integers(KINDS, arrays=False, fill=NONE))
