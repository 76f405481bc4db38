"""Greedy on one estimate: shortest expected delay, or least energy. Nothing is learned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.rules.choose import select_arm, take_first_best
from skyshore.rules.kernel import implement
from skyshore.rules.records import Options, Record


class ShortestDelayState(NamedTuple):
    """Nothing is learned."""

    rng: np.random.Generator


class GreedyEnergyState(NamedTuple):
    """Nothing is learned."""

    rng: np.random.Generator


@implement(select_arm, ShortestDelayState)
def select_shortest_delay(state: ShortestDelayState, demand: Record, options: Options) -> None:
    """Score is minus the latency in seconds."""
    for index in range(options.decision[0].count):
        options.scores[index] = -options.estimates[index].latency_s
    take_first_best(options)


@implement(select_arm, GreedyEnergyState)
def select_least_joules(state: GreedyEnergyState, demand: Record, options: Options) -> None:
    """Score is minus the joules."""
    for index in range(options.decision[0].count):
        options.scores[index] = -options.estimates[index].joules
    take_first_best(options)


class ShortestExpectedDelay(KernelPolicy):
    """Smallest estimated latency: transmission, queue and service together."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""
        super().__init__()
        self.state = ShortestDelayState(rng)


class GreedyEnergy(KernelPolicy):
    """Smallest estimated joules; deadlines are ignored."""

    def __init__(self, rng: np.random.Generator) -> None:
        """The generator is not needed: exact ties go to the first row."""
        super().__init__()
        self.state = GreedyEnergyState(rng)
