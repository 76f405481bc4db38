"""Ridge regression per arm with forgetting: weights, and the confidence width of a prediction."""

from __future__ import annotations

import numpy as np

from skyshore.policies.learning.arm_slots import ArmSlots, Where
from skyshore.policies.learning.snapshot import pack, unpack
from skyshore.policies.protocol import Arms, Floats

FIRST_ROOM = 16


class RidgeModels:
    """For every arm of one kind: A = λI + Σ γ^age·x·xᵀ and B = Σ γ^age·x·yᵀ, with age in outcomes of that arm.

    Weights A⁻¹B serve all targets y at once; √(xᵀA⁻¹x) is the width of the confidence ellipsoid along x (Li, Chu,
    Langford and Schapire, 2010). γ = 1 forgets nothing. Memory grows with the number of arms, not of outcomes.
    """

    def __init__(self, width: int, targets: int, *, prior: float = 1.0, discount: float = 1.0) -> None:
        """`width` features, `targets` regressions; `prior` is λ. Raises ValueError for a setting out of range."""
        if prior <= 0 or not 0 < discount <= 1:
            raise ValueError(f"prior must be positive and discount in (0, 1], not {prior} and {discount}")
        self.slots = ArmSlots(self._prepare)
        self._prior, self._discount = prior, discount
        self._gram: Floats = np.zeros((FIRST_ROOM, width, width))
        self._moment: Floats = np.zeros((FIRST_ROOM, width, targets))
        self._inverse: Floats = np.zeros((FIRST_ROOM, width, width))
        self._weights: Floats = np.zeros((FIRST_ROOM, width, targets))

    def read(self, arms: Arms, features: Floats) -> tuple[Floats, Floats]:
        """Predictions [arms, targets] and widths [arms] for `features` [arms, width]."""
        where = self.slots.of(arms)
        predicted: Floats = np.einsum("ni,nim->nm", features, self._weights[where])
        squares: Floats = np.einsum("ni,nij,nj->n", features, self._inverse[where], features)
        return predicted, np.sqrt(np.maximum(squares, 0.0))

    def learn(self, arm_id: str, features: Floats, targets: Floats) -> None:
        """Add one outcome: x [width] and y [targets]."""
        slot = self.slots.of_arm(arm_id)
        gram, moment = self._gram[slot], self._moment[slot]
        gram *= self._discount
        moment *= self._discount
        gram += np.outer(features, features)
        moment += np.outer(features, targets)
        self._solve(slot)

    def snapshot(self, kind: str) -> bytes:
        """Names of the arms, A − λI and B, as bytes."""
        known = self.slots.known()
        where: Where = np.fromiter(known.values(), dtype=np.intp, count=len(known))
        names = np.array(list(known), dtype=np.str_)
        return pack(kind, {"arms": names, "gram": self._gram[where], "moment": self._moment[where]})

    def restore(self, kind: str, data: bytes) -> None:
        """Replace everything. Raises ValueError for another format."""
        arrays = unpack(kind, data)
        for row, arm_id in enumerate(arrays["arms"].tolist()):
            slot = self.slots.of_arm(arm_id)
            self._gram[slot], self._moment[slot] = arrays["gram"][row], arrays["moment"][row]
            self._solve(slot)

    def _solve(self, slot: int) -> None:
        width = self._gram.shape[1]
        self._inverse[slot] = np.linalg.inv(self._gram[slot] + self._prior * np.eye(width))
        self._weights[slot] = self._inverse[slot] @ self._moment[slot]

    def _prepare(self, slot: int) -> None:
        if slot >= len(self._gram):
            self._gram, self._moment, self._inverse, self._weights = (
                np.concatenate([old, np.zeros_like(old)])
                for old in (self._gram, self._moment, self._inverse, self._weights)
            )
        self._gram[slot] = self._moment[slot] = self._weights[slot] = 0.0
        self._inverse[slot] = np.eye(self._gram.shape[1]) / self._prior
