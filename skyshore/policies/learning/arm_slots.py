"""Numbers for arms: learned figures are kept in arrays by number, also when the fleet changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skyshore.policies.protocol import Arms, ArmTable, Integers

SPARE = 256
"""Arms that left keep their numbers, in case they return. At most `SPARE` plus three times the present arms do so."""

Where = Integers | slice
"""Index of a column of learned figures for the rows of an `Arms`; a slice where possible, because it makes no copy."""


def arm_names(table: ArmTable) -> tuple[str, ...]:
    """Names of the arms: one slot per arm, the default."""
    return table.arm_ids


def engine_names(table: ArmTable) -> tuple[str, ...]:
    """Names of the engines, one per arm: arms that share an engine share its slot."""
    return table.engines or table.arm_ids


class ArmSlots:
    """Slot of every arm of one kind. `prepare(slot)` must make room for a new arm and blank it."""

    def __init__(
        self, prepare: Callable[[int], None], names: Callable[[ArmTable], tuple[str, ...]] = arm_names
    ) -> None:
        self._prepare, self._names = prepare, names
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._table: ArmTable | None = None
        self._of_rows: Integers = np.empty(0, dtype=np.intp)
        self._in_order = False

    def of(self, arms: Arms) -> Where:
        """Slots of the rows of `arms`."""
        if arms.table is not self._table:
            self._renumber(arms.table)
        if len(arms.rows) == len(self._of_rows):
            return slice(0, len(self._of_rows)) if self._in_order else self._of_rows
        return self._of_rows[arms.rows]

    def of_table(self, table: ArmTable) -> list[int]:
        """Slots of all rows of a table."""
        if table is not self._table:
            self._renumber(table)
        slots: list[int] = self._of_rows.tolist()
        return slots

    def of_arm(self, arm_id: str) -> int:
        """Slot of one arm; a new arm gets one."""
        slot = self._slots.get(arm_id)
        if slot is None:
            slot = self._slots[arm_id] = self._free.pop() if self._free else len(self._slots)
            self._prepare(slot)
        return slot

    def known(self) -> dict[str, int]:
        """All arms remembered and their slots."""
        return dict(self._slots)

    def _renumber(self, table: ArmTable) -> None:
        names = self._names(table)
        here = set(names)
        if len(self._slots.keys() | here) > SPARE + 4 * len(here):
            for arm_id in [arm_id for arm_id in self._slots if arm_id not in here]:
                self._free.append(self._slots.pop(arm_id))
        self._table = table
        self._of_rows = np.array([self.of_arm(name) for name in names], dtype=np.intp)
        self._in_order = bool((self._of_rows == np.arange(len(self._of_rows))).all())
