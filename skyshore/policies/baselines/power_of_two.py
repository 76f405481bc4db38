"""Power of two choices: draw two arms and take the less loaded one (Mitzenmacher, 2001)."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Arms, Context, Decision, Policy
from skyshore.rules.choose import load_share


class PowerOfTwo(Policy):
    """Two different rows at random; the smaller load / capacity wins, the first drawn on a tie."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def select(self, context: Context, arms: Arms) -> Decision:
        """The propensity counts every pair in which the chosen row wins."""
        number = len(arms)
        if number == 1:
            return Decision(0)
        first = int(self._rng.integers(number))
        second = (first + 1 + int(self._rng.integers(number - 1))) % number
        share = load_share(arms.load, arms.capacity)
        index = first if share[first] <= share[second] else second
        beaten = np.count_nonzero(share > share[index])
        tied = np.count_nonzero(share == share[index]) - 1
        # Of the number·(number − 1) ordered pairs: two orders against each beaten row, one against each tied row.
        return Decision(index, (2 * beaten + tied) / (number * (number - 1)), -share)
