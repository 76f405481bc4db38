"""Tasks placed and not heard of since, node by node: when a node falls idle, and whose deadline one more would break.

Tasks on a node share its iterations, or wait for one another; either way a newcomer delays them all. By how much is
what the arms' models learned, `stated service · u₁ / slots` for a whole stay. Whether that breaks a deadline depends on
what a task can spare, in its own σ, through the bell-shaped curve that every `MissRisk` starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skyshore.policies.engine_queues import EngineQueues
from skyshore.policies.protocol import Floats, Integers
from skyshore.policies.risk import first_chance
from skyshore.policies.uplinks import Uplink

GONE_S = 5.0
"""A task unheard of this long after its deadline is taken for gone."""
CAREFREE = 8.0
"""Who can spare so many σ breaks no deadline that counts."""
FIRST_ROOM = 16

# Rows of the block: when the node's last task is due to end, how many deadlines one more would break, tasks of ours,
# and of the way there when it is free and its seconds per byte, 0 where not seen.
ENDS_AT_S, BROKEN, OURS, FREE_AT_S, PACE = range(5)
ROWS = 5


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
    sent_s: float = 0.0
    """Seconds from its placing until its bytes are there."""
    start_s: float = 0.0
    """Seconds from its placing until its bytes are there and its engine is free."""
    work_s: float = 0.0
    """Of its engine, on its own."""
    queue_s: float = 0.0
    """Of others' tasks before it, by the core's estimate."""
    engine: int = -1
    """Number of the engine that serves one task at a time; -1 for one that serves several."""
    sent: float = 0.0
    """See `Uplink.send`."""
    load_s: float = 0.0
    """Integral of the node's tasks over time, as it stood when this one was placed."""
    node: int = -1
    others: float | None = None
    """Mean number of others on the node over its stay; None before it ended."""


class Way(NamedTuple):
    """What a task is to the way to its node."""

    up_bytes: float = 0.0
    stated_pace: float = 0.0
    """Seconds per byte, as the core measured it."""


NO_WAY = Way()


class NodeLoad:
    """Of one node: its tasks, the way to it, and what follows from them."""

    __slots__ = ("at_s", "broken", "ends_at_s", "load_s", "tasks", "uplink")

    def __init__(self) -> None:
        self.tasks: dict[str, Flying] = {}
        self.load_s = self.at_s = 0.0
        self.ends_at_s = self.broken = 0.0
        self.uplink = Uplink()

    def turn_to(self, now_s: float) -> None:
        """Bring the integral up to date."""
        self.load_s += len(self.tasks) * max(now_s - self.at_s, 0.0)
        self.at_s = max(now_s, self.at_s)


_IDLE = NodeLoad()
"""Stands for a node nothing was ever placed on."""


class InFlight:
    """All nodes of one kind of task, by their numbers in the fleet."""

    def __init__(self) -> None:
        self.engines = EngineQueues()
        self._nodes: dict[int, NodeLoad] = {}
        self._where: dict[str, int] = {}
        self._block: Floats = np.zeros((ROWS, FIRST_ROOM))

    def of(self, node: Integers) -> Floats:
        """[ROWS, rows]: see there."""
        try:
            return self._block.take(node, axis=1)
        except IndexError:  # a node nothing was ever placed on
            self._grow(int(node.max()) + 1)
            return self._block.take(node, axis=1)

    def add(self, number: int, task_id: str, now_s: float, flying: Flying, way: Way = NO_WAY) -> None:
        """A task was placed; those gone for good are forgotten."""
        self.drop(task_id, now_s)
        node = self._nodes.setdefault(number, NodeLoad())
        for gone in [name for name, task in node.tasks.items() if task.due_at_s + GONE_S < now_s]:
            self.engines.drop(node.tasks[gone].engine, gone, now_s)
            del node.tasks[gone], self._where[gone]
        node.turn_to(now_s)
        flying.load_s, flying.node = node.load_s, number
        flying.sent = node.uplink.send(now_s, way.up_bytes, way.stated_pace)
        if flying.engine >= 0:
            self.engines.add(flying.engine, task_id, now_s + flying.sent_s, flying.work_s)
        node.tasks[task_id] = flying
        self._where[task_id] = number
        self._refresh(number, node, now_s)

    def drop(self, task_id: str, now_s: float, *, answered: bool = False) -> Flying | None:
        """A task ended. Returns what was kept of it, `others` filled in; None if it is not known."""
        number = self._where.pop(task_id, None)
        if number is None:
            return None
        node = self._nodes[number]
        node.turn_to(now_s)
        flying = node.tasks.pop(task_id)
        if flying.engine >= 0:
            self.engines.drop(flying.engine, task_id, now_s, answered=answered)
        self._refresh(number, node, now_s)
        stay_s = now_s - flying.placed_at_s
        flying.others = (node.load_s - flying.load_s) / stay_s - 1.0 if stay_s > 0 else None
        return flying

    def arrived(self, flying: Flying, at_s: float, computed_s: float, stated_pace: float) -> None:
        """An answer came: see `Uplink.sent`."""
        node = self._nodes[flying.node]
        node.uplink.sent(flying.sent, at_s, computed_s, stated_pace)
        self._show_way(flying.node, node)

    def overdue(self, flying: Flying, at_s: float, stated_pace: float) -> None:
        """A task was given up: see `Uplink.late`."""
        node = self._nodes[flying.node]
        node.uplink.late(flying.sent, at_s, stated_pace)
        self._show_way(flying.node, node)

    def _show_way(self, number: int, node: NodeLoad) -> None:
        self._block[FREE_AT_S, number], self._block[PACE, number] = node.uplink.free_at_s, node.uplink.pace

    def _refresh(self, number: int, node: NodeLoad, now_s: float) -> None:
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
        way = node.uplink
        self._block[:, number] = (ends_at_s, broken, len(node.tasks), way.free_at_s, way.pace)

    def _grow(self, room: int) -> None:
        more = np.zeros((ROWS, max(room - self._block.shape[1], self._block.shape[1])))
        self._block = np.concatenate([self._block, more], axis=1)
