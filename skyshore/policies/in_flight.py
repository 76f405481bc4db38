"""Tasks placed and not heard of since, node by node: when a node falls idle, and whose deadline one more would break.

Tasks on a node share its iterations, or wait for one another; either way a newcomer delays them all. By how much is
what the arms' models learned, `stated service · u₁ / slots` for a whole stay. Whether that breaks a deadline depends on
what a task can spare, in its own σ, through the bell-shaped curve that every `MissRisk` starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyshore.policies.protocol import Floats, Integers
from skyshore.policies.risk import first_chance

GONE_S = 5.0
"""A task unheard of this long after its deadline is taken for gone."""
CAREFREE = 8.0
"""Who can spare so many σ breaks no deadline that counts."""
FIRST_ROOM = 16


@dataclass(slots=True)
class Flying:
    """One task on a node."""

    placed_at_s: float
    ends_at_s: float
    """As predicted when it was placed."""
    due_at_s: float
    sigma_s: float
    """Spread of `ends_at_s`."""
    delay_s: float
    """What one more task would add, were it there for the whole of this one's stay."""
    load_s: float = 0.0
    """Integral of the node's tasks over time, as it stood when this one was placed."""


class _Node:
    __slots__ = ("at_s", "broken", "ends_at_s", "load_s", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[str, Flying] = {}
        self.load_s = self.at_s = 0.0
        self.ends_at_s = self.broken = 0.0

    def turn_to(self, now_s: float) -> None:
        """Bring the integral up to date."""
        self.load_s += len(self.tasks) * max(now_s - self.at_s, 0.0)
        self.at_s = max(now_s, self.at_s)


_IDLE = _Node()
"""Stands for a node nothing was ever placed on."""


class InFlight:
    """All nodes of one kind of task, by their numbers in the fleet."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Node] = {}
        self._where: dict[str, int] = {}
        self._block: Floats = np.zeros((2, FIRST_ROOM))

    def of(self, node: Integers) -> Floats:
        """[2, rows]: when the node's last task is due to end, and how many deadlines one more would break."""
        try:
            return self._block.take(node, axis=1)
        except IndexError:  # a node nothing was ever placed on
            self._grow(int(node.max()) + 1)
            return self._block.take(node, axis=1)

    def of_few(self, node: Sequence[int]) -> tuple[list[float], list[float]]:
        """`of` in plain numbers."""
        nodes = [self._nodes.get(number, _IDLE) for number in node]
        return [node.ends_at_s for node in nodes], [node.broken for node in nodes]

    def add(self, number: int, task_id: str, now_s: float, flying: Flying) -> None:
        """A task was placed; those gone for good are forgotten."""
        self.drop(task_id, now_s)
        node = self._nodes.setdefault(number, _Node())
        for gone in [name for name, task in node.tasks.items() if task.due_at_s + GONE_S < now_s]:
            del node.tasks[gone], self._where[gone]
        node.turn_to(now_s)
        flying.load_s = node.load_s
        node.tasks[task_id] = flying
        self._where[task_id] = number
        self._refresh(number, node, now_s)

    def drop(self, task_id: str, now_s: float) -> float | None:
        """A task ended: how many others were with it on average; None if it is not known."""
        number = self._where.pop(task_id, None)
        if number is None:
            return None
        node = self._nodes[number]
        node.turn_to(now_s)
        flying = node.tasks.pop(task_id)
        self._refresh(number, node, now_s)
        stay_s = now_s - flying.placed_at_s
        return (node.load_s - flying.load_s) / stay_s - 1.0 if stay_s > 0 else None

    def _refresh(self, number: int, node: _Node, now_s: float) -> None:
        if number >= self._block.shape[1]:
            self._grow(number + 1)
        ends_at_s = broken = 0.0
        # A loop, because there are few tasks on a node and this runs twice for every one of them.
        for task in node.tasks.values():
            ends_at_s = max(ends_at_s, task.ends_at_s)
            spare = (task.due_at_s - task.ends_at_s) / task.sigma_s
            left = (task.ends_at_s - now_s) / (task.ends_at_s - task.placed_at_s)
            later = min(max(left, 0.0), 1.0) * task.delay_s / task.sigma_s
            if spare - later < CAREFREE:
                broken += first_chance(spare - later) - first_chance(spare)
        node.ends_at_s, node.broken = ends_at_s, broken
        self._block[0, number], self._block[1, number] = ends_at_s, broken

    def _grow(self, room: int) -> None:
        more = np.zeros((2, max(room - self._block.shape[1], self._block.shape[1])))
        self._block = np.concatenate([self._block, more], axis=1)
