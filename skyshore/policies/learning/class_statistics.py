"""Discounted counts and means per service class and arm: the statistics of a bandit with non-contextual arms."""

from __future__ import annotations

import numpy as np

from skyshore.policies.learning.arm_slots import ArmSlots, Where
from skyshore.policies.learning.snapshot import pack, unpack
from skyshore.policies.protocol import Arms, Floats

MOST_CLASSES = 64
"""Beyond these, classes share one row: a caller must not be able to grow the table without end."""
OTHERS = "(others)"
FIRST_ROOM = 16


class ClassStatistics:
    """For class k and arm a: N = Σ γ^age and R = Σ γ^age · reward over the outcomes seen, age counted in outcomes of k.

    γ = 1 gives plain counts and means; below 1 the past is forgotten (discounted UCB).
    """

    def __init__(self, discount: float) -> None:
        if not 0 < discount <= 1:
            raise ValueError(f"discount must lie in (0, 1], not {discount}")
        self.slots = ArmSlots(self._prepare)
        self._discount = discount
        self._classes: dict[str, int] = {}
        self._count: Floats = np.zeros((0, FIRST_ROOM))
        self._sum: Floats = np.zeros((0, FIRST_ROOM))
        self._total: list[float] = []
        """Σ N over all arms, by class."""

    def read(self, service_class: str, arms: Arms) -> tuple[Floats, Floats, float]:
        """N and R / N of the rows of `arms` (mean 0 where nothing is known), and Σ N over all arms of the class."""
        row, where = self._row(service_class), self.slots.of(arms)
        count = self._count[row, where]
        mean = self._sum[row, where] / np.maximum(count, 1e-12)
        return count, mean, self._total[row]

    def learn(self, service_class: str, arm_id: str, reward: float) -> None:
        """Take in one outcome."""
        row, slot = self._row(service_class), self.slots.of_arm(arm_id)
        if self._discount < 1:
            self._count[row] *= self._discount
            self._sum[row] *= self._discount
        self._total[row] = self._total[row] * self._discount + 1.0
        self._count[row, slot] += 1.0
        self._sum[row, slot] += reward

    def snapshot(self, kind: str) -> bytes:
        """Everything, as bytes."""
        known = self.slots.known()
        where: Where = np.fromiter(known.values(), dtype=np.intp, count=len(known))
        return pack(
            kind,
            {
                "arms": np.array(list(known), dtype=np.str_),
                "classes": np.array(list(self._classes), dtype=np.str_),
                "count": self._count[:, where],
                "sum": self._sum[:, where],
            },
        )

    def restore(self, kind: str, data: bytes) -> None:
        """Replace everything. Raises ValueError for another format."""
        arrays = unpack(kind, data)
        for row, service_class in enumerate(arrays["classes"].tolist()):
            here = self._row(service_class)
            for column, arm_id in enumerate(arrays["arms"].tolist()):
                slot = self.slots.of_arm(arm_id)
                self._count[here, slot] = arrays["count"][row, column]
                self._sum[here, slot] = arrays["sum"][row, column]
            self._total[here] = float(self._count[here].sum())

    def _row(self, service_class: str) -> int:
        row = self._classes.get(service_class)
        if row is not None:
            return row
        if len(self._classes) >= MOST_CLASSES and service_class != OTHERS:
            return self._row(OTHERS)
        blank = np.zeros((1, self._count.shape[1]))
        self._count, self._sum = np.concatenate([self._count, blank]), np.concatenate([self._sum, blank])
        self._total.append(0.0)
        self._classes[service_class] = len(self._classes)
        return len(self._classes) - 1

    def _prepare(self, slot: int) -> None:
        room = self._count.shape[1]
        if slot >= room:
            blank = np.zeros((len(self._count), room))
            self._count = np.concatenate([self._count, blank], axis=1)
            self._sum = np.concatenate([self._sum, blank], axis=1)
        for row, forgotten in enumerate(self._count[:, slot].tolist()):
            self._total[row] -= forgotten
        self._count[:, slot] = 0.0
        self._sum[:, slot] = 0.0
