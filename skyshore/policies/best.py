"""The row of the best score, ties broken at random: for scores in plain numbers."""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import Decision


def draw_best(scores: list[float], rng: np.random.Generator) -> Decision:
    """Every row of the largest score is as likely as the others; a draw is made only where there is a choice."""
    top = max(scores)
    ties = scores.count(top)
    if ties == 1:
        return Decision(scores.index(top), 1.0, scores)
    best = [index for index, score in enumerate(scores) if score == top]
    return Decision(best[int(rng.integers(ties))], 1.0 / ties, scores)
