"""An ensemble of small neural networks learned online: predictions, and how much the members disagree.

Each member is a perceptron with one hidden layer of tanh units. All weights are in one block, so that a pass through
the ensemble is two matrix products. Each member draws its own batches (bootstrap), so the members' disagreement
measures uncertainty. The loss is the mean squared error, the optimiser Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        shapes = (members, inputs, hidden), (members, 1, hidden), (members, hidden, outputs), (members, 1, outputs)
        # One block of [weights, means, squares, slopes], so that an Adam step is a few operations on whole rows.
        self._block: Floats = np.zeros((4, sum(math.prod(shape) for shape in shapes)))
        self._weights, self._means, self._squares, self._slopes = (_views(row, shapes) for row in self._block)
        self._weights[0][...] = rng.normal(0.0, 1.0 / np.sqrt(inputs), shapes[0])
        self._weights[2][...] = rng.normal(0.0, 0.3 / np.sqrt(hidden), shapes[2])
        self._steps = 0
        self._seen: Floats = np.zeros((room, inputs))
        self._came: Floats = np.zeros((room, outputs))
        self._count = 0

    def predict(self, features: Floats) -> Floats:
        """Predictions of every member, [members, n, outputs], for features [n, inputs]."""
        first, first_bias, second, second_bias = self._weights
        guesses: Floats = _hidden(features, first, first_bias) @ second
        guesses += second_bias
        return guesses

    def observe(self, features: Floats, came: Floats | Sequence[float]) -> None:
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
            self._descend(self._seen.take(drawn, axis=0), self._came.take(drawn, axis=0))

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
        hidden = _hidden(features, first, first_bias)
        error = 2.0 * (hidden @ second + second_bias - wanted) / features.shape[1]
        back = error @ second.swapaxes(1, 2)
        first_slope, first_bias_slope, second_slope, second_bias_slope = self._slopes
        np.matmul(hidden.swapaxes(1, 2), error, out=second_slope)
        np.add.reduce(error, axis=1, keepdims=True, out=second_bias_slope)
        hidden *= hidden
        back *= np.subtract(1.0, hidden, out=hidden)
        np.matmul(features.swapaxes(1, 2), back, out=first_slope)
        np.add.reduce(back, axis=1, keepdims=True, out=first_bias_slope)
        self._adam()

    def _adam(self) -> None:
        self._steps += 1
        mean_scale, square_scale = 1.0 - BETA_MEAN**self._steps, 1.0 - BETA_SQUARE**self._steps
        weights, means, squares, slopes = self._block
        means += (1.0 - BETA_MEAN) * (slopes - means)
        squares += (1.0 - BETA_SQUARE) * (slopes * slopes - squares)
        weights -= self._rate * ((means / mean_scale) / (np.sqrt(squares / square_scale) + TINY))


def _views(row: Floats, shapes: Sequence[tuple[int, ...]]) -> list[Floats]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(row, ends[:-1]), shapes, strict=True)]


def _hidden(features: Floats, weights: Floats, bias: Floats) -> Floats:
    hidden: Floats = features @ weights
    hidden += bias
    return np.tanh(hidden, out=hidden)
