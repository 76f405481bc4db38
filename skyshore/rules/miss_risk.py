"""The chance that a deadline is missed, and the price of a miss, learned per service class.

A finished task gives a score z = (measured − predicted latency) / (σ · predicted latency). The probability that a task
misses is the share of earlier scores above its slack, as in conformal prediction. One difference: a task that was cut
off at its deadline shows only that its score would have been larger. So the scores are kept as a survival curve
(Kaplan and Meier 1958, on intervals) with forgetting.
"""

from __future__ import annotations

import math

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Floats, Record, dtype_of

FIRST_EDGE, LAST_EDGE = -3.0, 8.0
EDGES_PER_SIGMA = 4
EDGES = 45
"""Score edges: −3, −2.75, … 8."""
EDGES_BELOW_ZERO = 12
INTERVALS = EDGES + 1
"""The first interval is everything below the first edge, the last everything from the last edge on."""
FORGET = 0.995
"""Share of the past that is kept per score."""
PRIOR_SCORES = 10.0
"""Weight of the prior, in scores."""
MISS_MEMORY = 0.02
"""Step of the running share of misses."""
STEP = 0.01
"""Step of the dual ascent, in log λ per outcome."""
CLASS = dtype_of("multiplier missed_share shortfall", "used")
"""A service class: λ, the running share of misses, the virtual queue of quality, and whether it was ever seen."""


@kernel
def first_chance(spare: float) -> float:
    """Prior chance that a score exceeds `spare`: 1 / (1 + exp(1.36·spare)), a mean absolute error of one σ."""
    return 1.0 / (1.0 + math.exp(1.36 * (spare if spare < 100.0 else 100.0)))


@kernel
def interval_of(score: float) -> int:
    """How many edges are at or below the score. Exact: a product with a power of two does not round."""
    if score < FIRST_EDGE:
        return 0
    if score >= LAST_EDGE:
        return EDGES
    return math.floor(score * EDGES_PER_SIGMA) + EDGES_BELOW_ZERO + 1


@kernel
def blank_curve(alive: Floats, ended: Floats, chance: Floats) -> None:
    """Set one class's curve to the prior."""
    for index in range(INTERVALS):
        edge = FIRST_EDGE + (index - 1) / EDGES_PER_SIGMA
        alive[index] = PRIOR_SCORES * (first_chance(edge) if index > 0 else 1.0)
    for index in range(INTERVALS):
        ended[index] = alive[index] - (alive[index + 1] if index + 1 < INTERVALS else 0.0)
    survive(alive, ended, chance)


@kernel
def survive(alive: Floats, ended: Floats, chance: Floats) -> None:
    """Chance at each edge: Π (1 − ended / alive) over the intervals below it."""
    product = 1.0
    for index in range(EDGES):
        reached = alive[index]
        stays = 1.0 - ended[index] / (reached if reached > 1e-9 else 1e-9)
        product *= 0.0 if stays < 0.0 else (stays if stays < 1.0 else 1.0)
        chance[index] = product


@kernel
def observe_score(alive: Floats, ended: Floats, chance: Floats, score: float, cut_off: bool) -> None:
    """Add one score. `alive`: scores that reached each interval; `ended`: those in it that were not cut off."""
    interval = interval_of(score)
    for index in range(INTERVALS):
        alive[index] *= FORGET
        ended[index] *= FORGET
        if index <= interval:
            alive[index] += 1.0
    if not cut_off:
        ended[interval] += 1.0
    survive(alive, ended, chance)


@kernel
def miss_chance(chance: Floats, spare: float) -> float:
    """Chance that a score exceeds `spare` (in σ): linear between the edges, constant outside."""
    edges = interval_of(spare)
    if edges == 0:
        return float(chance[0])
    if edges == EDGES:
        return float(chance[EDGES - 1])
    below = edges - 1
    edge = (below - EDGES_BELOW_ZERO) / EDGES_PER_SIGMA
    slope = (chance[below + 1] - chance[below]) * EDGES_PER_SIGMA
    return float(slope * (spare - edge) + chance[below])


@kernel
def observe_miss(  # noqa: PLR0917 (numba takes arguments by position)
    group: Record, missed: bool, raise_by: float, lower_by: float, least: float, largest: float
) -> None:
    """Dual ascent on "at most a share α misses": λ ← λ·exp(`STEP`·(missed/α − 1)), kept within bounds.

    `raise_by` and `lower_by` are the two values of that factor.
    """
    group.missed_share += MISS_MEMORY * ((1.0 if missed else 0.0) - group.missed_share)
    moved = group.multiplier * (raise_by if missed else lower_by)
    group.multiplier = min(max(moved, least), largest)


@kernel
def observe_quality(group: Record, quality: float, floor: float) -> None:
    """Virtual queue of the quality floor: Q ← max(Q + floor − quality, 0)."""
    if floor > 0:
        group.shortfall = max(group.shortfall + (floor - quality), 0.0)


@kernel
def quality_margin(group: Record) -> float:
    """Quality to ask for beyond the floor."""
    return float(min(0.01 * group.shortfall, 0.1))
