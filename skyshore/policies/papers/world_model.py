"""An ensemble of small neural networks learned online: predictions, and how much the members disagree.

Each member is a perceptron with one hidden layer of tanh units. All weights are in one block, so that a pass through
the ensemble is two matrix products. Each member draws its own batches (bootstrap), so the members' disagreement
measures uncertainty. The loss is the mean squared error, the optimiser Adam.
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.learning.snapshot import pack, unpack
from skyshore.policies.protocol import Floats

BETA_MEAN, BETA_SQUARE, TINY = 0.9, 0.999, 1e-8


class WorldModel:
    """Maps x [inputs] to `members` predictions of y [outputs]."""

    def __init__(
        self,
        rng: np.random.Generator,
        inputs: int,
        outputs: int,
        *,
        members: int = 5,
        hidden: int = 32,
        room: int = 2048,
        rate: float = 1e-2,
    ) -> None:
        """`room` is the largest number of stored outcomes, `rate` the learning rate."""
        self._rng, self._rate = rng, rate
        self._weights = [
            rng.normal(0.0, 1.0 / np.sqrt(inputs), (members, inputs, hidden)),
            np.zeros((members, 1, hidden)),
            rng.normal(0.0, 0.3 / np.sqrt(hidden), (members, hidden, outputs)),
            np.zeros((members, 1, outputs)),
        ]
        self._means: list[Floats] = [np.zeros_like(weight) for weight in self._weights]
        self._squares: list[Floats] = [np.zeros_like(weight) for weight in self._weights]
        self._steps = 0
        self._seen: Floats = np.zeros((room, inputs))
        self._came: Floats = np.zeros((room, outputs))
        self._count = 0

    def predict(self, features: Floats) -> Floats:
        """Predictions of every member, [members, n, outputs], for features [n, inputs]."""
        first, first_bias, second, second_bias = self._weights
        hidden = np.tanh(features @ first + first_bias)
        guesses: Floats = hidden @ second + second_bias
        return guesses

    def observe(self, features: Floats, came: Floats) -> None:
        """Store one outcome in place of the oldest."""
        place = self._count % len(self._seen)
        self._seen[place], self._came[place] = features, came
        self._count += 1

    def fit(self, steps: int, batch: int = 64) -> None:
        """Make Adam steps on the stored outcomes; each member draws its own batches."""
        known = min(self._count, len(self._seen))
        members = len(self._weights[0])
        for _ in range(steps if known else 0):
            drawn = self._rng.integers(known, size=(members, batch))
            self._descend(self._seen[drawn], self._came[drawn])

    def snapshot(self, kind: str) -> bytes:
        """Weights and Adam's moments, without the stored outcomes."""
        arrays = {f"{name}{i}": array for name, group in self._groups().items() for i, array in enumerate(group)}
        return pack(kind, {**arrays, "steps": np.array(self._steps)})

    def restore(self, kind: str, data: bytes) -> None:
        """Replace the weights. Raises ValueError for another format or shape."""
        arrays = unpack(kind, data)
        places = {f"{name}{i}": array for name, group in self._groups().items() for i, array in enumerate(group)}
        for name, place in places.items():
            if name not in arrays or arrays[name].shape != place.shape:
                raise ValueError(f"a snapshot without {name} of shape {place.shape}")
        for name, place in places.items():
            place[...] = arrays[name]
        self._steps = int(arrays["steps"])

    def _groups(self) -> dict[str, list[Floats]]:
        return {"weight": self._weights, "mean": self._means, "square": self._squares}

    def _descend(self, features: Floats, wanted: Floats) -> None:
        first, first_bias, second, second_bias = self._weights
        hidden = np.tanh(features @ first + first_bias)
        error = 2.0 * (hidden @ second + second_bias - wanted) / features.shape[1]
        back = (error @ second.swapaxes(1, 2)) * (1.0 - hidden * hidden)
        self._adam(
            [
                features.swapaxes(1, 2) @ back,
                back.sum(axis=1, keepdims=True),
                hidden.swapaxes(1, 2) @ error,
                error.sum(axis=1, keepdims=True),
            ]
        )

    def _adam(self, slopes: list[Floats]) -> None:
        self._steps += 1
        mean_scale, square_scale = 1.0 - BETA_MEAN**self._steps, 1.0 - BETA_SQUARE**self._steps
        for i, slope in enumerate(slopes):
            self._means[i] += (1.0 - BETA_MEAN) * (slope - self._means[i])
            self._squares[i] += (1.0 - BETA_SQUARE) * (slope * slope - self._squares[i])
            move = (self._means[i] / mean_scale) / (np.sqrt(self._squares[i] / square_scale) + TINY)
            self._weights[i] -= self._rate * move
