"""The functions that a policy with a kernel rule implements, and rules that several such policies share."""

from __future__ import annotations

from skyshore.rules.kernel import allocating_kernel, generic, kernel
from skyshore.rules.records import NONE, Floats, Options, Record


@generic
def select_arm(state: object, demand: Record, options: Options) -> None:
    """Choose among `options.estimates[: decision.count]`, of which there is at least one.

    Writes `index` (NONE to refuse), `propensity`, `ties` and, where there are any, `scores` and features into
    `options.decision[0]`, and the score of each arm into `options.scores`.
    """


@generic
def learn(state: object, attempt: Record, now_s: float) -> None:
    """Learn from an attempt that ended; its outcome and reward are filled in. Without an implementation: nothing."""


@generic
def note_task(state: object, demand: Record, options: Options) -> None:
    """Note a task of a slot that has ended, with the arms that it may take, before a task of the slot is placed."""


@generic
def plan_slot(state: object) -> None:
    """Plan the tasks noted; `select_arm` is then called for each. Without an implementation: nothing."""


@kernel
def decide(state: object, demand: Record, options: Options) -> None:
    """`select_arm` on a fresh decision."""
    decision = options.decision[0]
    decision.index, decision.propensity, decision.ties = NONE, 1.0, 1
    decision.scores = decision.features = decision.transient = decision.reason = 0
    select_arm(state, demand, options)


@kernel
def learn_attempt(state: object, attempt: Record, now_s: float) -> None:
    """`learn`, to be called from Python."""
    learn(state, attempt, now_s)


@allocating_kernel
def draw_below(rng: object, count: int) -> int:
    """A random number from 0 to `count` - 1."""
    return int(rng.integers(0, count))  # type: ignore[attr-defined] # numba takes a Generator, and mypy no `Any` here


@kernel
def take_best(rng: object, options: Options) -> None:
    """Take the arm of the largest score. Ties are broken at random; a random number is drawn only if there is a tie."""
    decision, scores = options.decision[0], options.scores
    top, first, ties = scores[0], 0, 1
    for index in range(1, decision.count):
        if scores[index] > top:
            top, first, ties = scores[index], index, 1
        elif scores[index] == top:
            ties += 1
    decision.scores, decision.ties, decision.propensity = 1, ties, 1.0 / ties
    if ties > 1:
        skip = draw_below(rng, ties)
        for index in range(first, decision.count):
            if scores[index] == top:
                if skip == 0:
                    first = index
                    break
                skip -= 1
    decision.index = first


@kernel
def load_share(load: Floats, capacity: Floats) -> Floats:
    """Share of a node's capacity that is taken, from 0 to 1: numbers, or arrays of one shape."""
    return load / capacity


@kernel
def score_by_load(options: Options) -> None:
    """Score is minus the load share."""
    for index in range(options.decision[0].count):
        estimate = options.estimates[index]
        options.scores[index] = -load_share(estimate.load, estimate.capacity)


@kernel
def take_first_best(options: Options) -> None:
    """The first arm of the largest score."""
    decision, best = options.decision[0], 0
    for index in range(1, decision.count):
        if options.scores[index] > options.scores[best]:
            best = index
    decision.scores, decision.index = 1, best
