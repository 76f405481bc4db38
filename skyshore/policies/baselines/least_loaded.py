"""Least loaded: the node with the smallest load / capacity, as in most load balancers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.rules.choose import score_by_load, select_arm, take_best
from skyshore.rules.kernel import implement
from skyshore.rules.records import Options, Record


class LeastLoadedState(NamedTuple):
    """Nothing is learned."""

    rng: np.random.Generator


@implement(select_arm, LeastLoadedState)
def select_least_loaded(state: LeastLoadedState, demand: Record, options: Options) -> None:
    """Score is minus the load share."""
    score_by_load(options)
    take_best(state.rng, options)


class LeastLoaded(KernelPolicy):
    """Smallest load / capacity; ties are broken at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.state = LeastLoadedState(rng)
