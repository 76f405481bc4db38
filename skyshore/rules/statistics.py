"""Discounted counts and means per service class and arm: the statistics of a bandit with non-contextual arms.

For class k and arm a: N = Σ γ^age and R = Σ γ^age · reward over the outcomes seen, age counted in outcomes of k. γ = 1
gives plain counts and means; below 1 the past is forgotten (discounted UCB).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skyshore.rules.kernel import kernel
from skyshore.rules.records import KINDS, MOST_GROUPS, Floats, floats


class Statistics(NamedTuple):
    """N and R of every kind, class and arm."""

    counts: Floats
    """[kinds][groups][slots] N."""
    sums: Floats
    """[kinds][groups][slots] R."""
    totals: Floats
    """[kinds][groups] Σ N over all arms."""


def blank_statistics(slots: int, groups: int = MOST_GROUPS) -> Statistics:
    """Nothing seen, as lists."""
    counts, sums = floats(KINDS, groups, slots, arrays=False), floats(KINDS, groups, slots, arrays=False)
    return Statistics(counts, sums, floats(KINDS, groups, arrays=False))


@kernel
def mean_reward(total: float, count: float) -> float:
    """R / N; 0 where nothing is known."""
    return total / max(count, 1e-12)


@kernel
def learn_reward(state: Statistics, kind: int, group: int, slot: int, reward: float, discount: float) -> None:  # noqa: PLR0917 (numba takes arguments by position)
    """Add one outcome."""
    counts, sums = state.counts[kind][group], state.sums[kind][group]
    if discount < 1.0:
        for index in range(len(counts)):
            counts[index] *= discount
            sums[index] *= discount
    state.totals[kind][group] = state.totals[kind][group] * discount + 1.0
    counts[slot] += 1.0
    sums[slot] += reward


@kernel
def forget_arm(state: Statistics, kind: int, slot: int) -> None:
    """Blank an arm's number for another arm."""
    for group in range(len(state.totals[kind])):
        state.totals[kind][group] -= state.counts[kind][group][slot]
        state.counts[kind][group][slot] = state.sums[kind][group][slot] = 0.0


def with_slots(state: Statistics, count: int) -> Statistics:
    """The same statistics with room for so many arms of a kind. Lists are extended in place."""
    room = len(state.counts[0][0])
    if count <= room:
        return state
    more = max(room, count - room)
    if isinstance(state.counts, np.ndarray):
        blank = np.zeros((*state.counts.shape[:2], more))
        return state._replace(
            counts=np.concatenate([state.counts, blank], axis=2), sums=np.concatenate([state.sums, blank], axis=2)
        )
    for table in (state.counts, state.sums):
        for groups in table:
            for arms in groups:
                arms.extend([0.0] * more)
    return state
