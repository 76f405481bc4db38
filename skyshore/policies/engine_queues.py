"""When each engine that serves one task at a time will be free of those placed on it.

Such an engine works first in, first out, so its end is a sum: each task begins when the one before it has ended and its
own bytes are there. Every task that leaves, well or not, sets the clock of those behind it. Engines that serve several
tasks side by side are not here: what those cost each other is learned (`arm_models`).
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.arm_slots import ArmSlots, engine_names
from skyshore.policies.protocol import Arms, Floats

FIRST_ROOM = 16


class EngineQueues:
    """All engines of one kind of task."""

    def __init__(self) -> None:
        self.slots = ArmSlots(self._prepare, engine_names)
        self._free_at_s: Floats = np.zeros(FIRST_ROOM)
        self._tasks: dict[int, dict[str, tuple[float, float]]] = {}
        """Per engine, in order: when a task's bytes are there, and how long its work takes."""

    def of(self, arms: Arms) -> Floats:
        """When the engine of each row is free."""
        where = self.slots.of(arms)  # first: it may make room, which replaces the column
        return self._free_at_s[where]

    def number(self, arms: Arms, index: int) -> int:
        """Of the engine behind one row."""
        return self.slots.of_arm(engine_names(arms.table)[int(arms.rows[index])])

    def add(self, number: int, task_id: str, ready_at_s: float, work_s: float) -> None:
        """A task was placed last in line."""
        self._tasks.setdefault(number, {})[task_id] = (ready_at_s, work_s)
        self._free_at_s[number] = max(float(self._free_at_s[number]), ready_at_s) + work_s

    def drop(self, number: int, task_id: str, at_s: float, *, answered: bool = False) -> None:
        """A task left at `at_s`; those behind it move up.

        Before one that was answered nobody is left: tasks that a user gave up, of which nobody tells us, end so.
        """
        tasks = self._tasks.get(number)
        if tasks is None or task_id not in tasks:
            return
        while answered and (first := next(iter(tasks))) != task_id:
            del tasks[first]
        del tasks[task_id]
        free_at_s = at_s
        for ready_at_s, work_s in tasks.values():
            free_at_s = max(free_at_s, ready_at_s) + work_s
        self._free_at_s[number] = free_at_s

    def _prepare(self, number: int) -> None:
        if number >= len(self._free_at_s):
            self._free_at_s = np.concatenate([self._free_at_s, np.zeros_like(self._free_at_s)])
        self._free_at_s[number] = 0.0
        self._tasks.pop(number, None)
