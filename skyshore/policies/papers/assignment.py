"""Joint assignment of a slot's tasks to arms within the room of their nodes: greedy by regret, then moves and swaps.

The problem is the generalised assignment problem, hard in general; for unit needs and one resource the result is
compared with the exact optimum in the tests.
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Floats, Integers

NOWHERE = -1
MOST_IMPROVED = 64
"""Slots with more tasks are left as the greedy pass made them."""
PASSES = 3


class Assignment:
    """One slot's problem and, after `solve`, its answer: `choice` holds an arm per task or `NOWHERE`.

    `scores` is [tasks, arms], −∞ where an arm is out of the question; `needs` [tasks, arms, resources]; `room`
    [nodes, resources]; `node` the node of each arm.
    """

    def __init__(self, scores: Floats, needs: Floats, room: Floats, node: Integers) -> None:
        self._scores, self._needs, self._room, self._node = scores, needs, room.copy(), node
        self.choice = np.full(len(scores), NOWHERE)

    def solve(self) -> Integers:
        """Assign as many as fit, best total first."""
        for task in self._by_regret():
            arm = self._best_fitting(task)
            if arm != NOWHERE:
                self._put(task, arm)
        if len(self.choice) <= MOST_IMPROVED:
            for _ in range(PASSES):
                if not self._improve():
                    break
        return self.choice

    @property
    def value(self) -> float:
        """Sum of the scores of the tasks assigned."""
        placed = np.flatnonzero(self.choice != NOWHERE)
        return float(self._scores[placed, self.choice[placed]].sum())

    def _by_regret(self) -> Integers:
        """Tasks that lose most by getting their second best arm come first."""
        if self._scores.shape[1] == 1:
            return np.argsort(-self._scores[:, 0], kind="stable")
        top = np.partition(np.maximum(self._scores, -1e9), -2, axis=1)
        return np.argsort(top[:, -2] - top[:, -1], kind="stable")

    def _fits(self, task: int, arm: int) -> bool:
        return bool((self._needs[task, arm] <= self._room[self._node[arm]] + 1e-12).all())

    def _best_fitting(self, task: int) -> int:
        for arm in np.argsort(-self._scores[task], kind="stable"):
            if self._scores[task, arm] == -np.inf:
                return NOWHERE
            if self._fits(task, arm):
                return int(arm)
        return NOWHERE

    def _put(self, task: int, arm: int) -> None:
        self.choice[task] = arm
        self._room[self._node[arm]] -= self._needs[task, arm]

    def _take(self, task: int) -> int:
        arm = int(self.choice[task])
        if arm != NOWHERE:
            self._room[self._node[arm]] += self._needs[task, arm]
            self.choice[task] = NOWHERE
        return arm

    def _improve(self) -> bool:
        changed = False
        for task in range(len(self.choice)):
            changed |= self._move(task)
            for other in range(task):
                changed |= self._swap(task, other)
        return changed

    def _score(self, task: int, arm: int) -> float:
        return float(self._scores[task, arm]) if arm != NOWHERE else -1e9

    def _move(self, task: int) -> bool:
        before = self._take(task)
        after = self._best_fitting(task)
        better = self._score(task, after) > self._score(task, before) + 1e-12
        chosen = after if better else before
        if chosen != NOWHERE:
            self._put(task, chosen)
        return better

    def _swap(self, one: int, two: int) -> bool:
        """Let the second make way for the first and settle elsewhere, if both together gain by it."""
        was_one, was_two = self._take(one), self._take(two)
        before = self._score(one, was_one) + self._score(two, was_two)
        for first, second in ((one, two), (two, one)):
            arm = self._best_fitting(first)
            if arm == NOWHERE:
                continue
            self._put(first, arm)
            other = self._best_fitting(second)
            if self._score(first, arm) + self._score(second, other) > before + 1e-12:
                if other != NOWHERE:
                    self._put(second, other)
                return True
            self._take(first)
        for task, arm in ((one, was_one), (two, was_two)):
            if arm != NOWHERE:
                self._put(task, arm)
        return False
