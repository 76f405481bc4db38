"""The chance that a deadline is missed, and what a miss is worth: both learned online, per service class.

The chance is read from the class's own past. A finished task leaves a score z = (measured − predicted) / (σ·predicted).
How often later scores exceed what a task can spare is what a conformal predictor would promise, with one difference:
a task cut off at its deadline shows only that its score would have been larger. So scores are kept as a survival curve
(Kaplan and Meier on intervals), which takes such scores for what they say, and which forgets.
"""

from __future__ import annotations

import math

import numpy as np

from skyshore.policies.protocol import Floats

EDGES: Floats = np.append(-np.inf, np.arange(-3.0, 8.01, 0.25)).astype(np.float64)
"""Scores between which the curve is a step."""
FORGET = 0.995
PRIOR_SCORES = 10.0
"""Weight of the first belief, in scores: bell-shaped, with a mean absolute error of one σ."""


def first_chance(spare: float) -> float:
    """Chance that a score exceeds `spare` before anything was learned: logistic, of the wanted spread; 1 at −∞."""
    return 1.0 / (1.0 + math.exp(1.36 * min(spare, 100.0)))


class MissRisk:
    """Survival curve of one class's scores."""

    def __init__(self) -> None:
        curve = np.array([first_chance(edge) for edge in EDGES.tolist()])
        self.alive: Floats = PRIOR_SCORES * curve
        """Scores seen that reached each interval."""
        self.ended: Floats = self.alive - np.append(self.alive[1:], 0.0)
        """Scores that fell into it and were not cut off."""
        self._chance: Floats = curve[1:]
        self._refresh()

    def observe(self, score: float, *, cut_off: bool) -> None:
        """Take in the score of one finished task."""
        interval = int(np.searchsorted(EDGES, score, side="right")) - 1
        self.alive *= FORGET
        self.ended *= FORGET
        self.alive[: interval + 1] += 1.0
        if not cut_off:
            self.ended[interval] += 1.0
        self._refresh()

    def chance(self, spare: Floats) -> Floats:
        """Chance that the score exceeds `spare`."""
        return np.interp(spare, EDGES[1:], self._chance)

    def chance_few(self, spare: list[float]) -> list[float]:
        """`chance` in plain numbers."""
        chances: list[float] = np.interp(spare, EDGES[1:], self._chance).tolist()
        return chances

    def restore(self, alive: Floats, ended: Floats) -> None:
        """Go on from another curve. Raises ValueError for one on other intervals."""
        if alive.shape != EDGES.shape or ended.shape != EDGES.shape:
            raise ValueError(f"a curve of {alive.shape} and {ended.shape} intervals, not of {EDGES.shape}")
        self.alive, self.ended = alive, ended
        self._refresh()

    def _refresh(self) -> None:
        # Before each edge but the first: the share that outlived every interval below it.
        stays: Floats = 1.0 - self.ended[:-1] / np.maximum(self.alive[:-1], 1e-9)
        self._chance = np.multiply.accumulate(np.clip(stays, 0.0, 1.0))


class Multiplier:
    """Dual variable of "at most a share α of tasks misses": raised by each miss, lowered by each success."""

    def __init__(self, miss_share: float, least: float, largest: float, step: float = 0.01) -> None:
        self._miss_share, self._least, self._largest, self._step = miss_share, least, largest, step
        self.value = (least * largest) ** 0.5
        self.missed_share = 0.0
        """Running share of misses."""

    def observe(self, *, missed: bool) -> None:
        """Take in how one task ended."""
        self.missed_share += 0.02 * (missed - self.missed_share)
        moved = self.value * np.exp(self._step * (missed / self._miss_share - 1.0))
        self.value = float(np.clip(moved, self._least, self._largest))
