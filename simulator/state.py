"""States under which the kernel does not decide itself: a Python policy is asked, or placements were given before."""

from __future__ import annotations

from typing import NamedTuple

from simulator.placing import ASK
from simulator.records import ATTEMPTS
from skyshore.rules.choose import learn, select_arm
from skyshore.rules.estimate import estimate_arm
from skyshore.rules.kernel import implement
from skyshore.rules.place import place
from skyshore.rules.records import NONE, Integers, Options, Record, Records


class AskPolicy(NamedTuple):
    """A Python policy decides: the kernel returns to it at every decision and outcome."""

    clock: Records


class GivenPlacements(NamedTuple):
    """Every task has its arm, whatever the scheduler thinks of it, or is refused."""

    arms: Integers
    """[arrivals] number of the arm, or NONE."""


@implement(select_arm, AskPolicy)
def ask(state: AskPolicy, demand: Record, options: Options) -> None:
    """Leave the decision to the driver."""
    options.decision[0].index = ASK


@implement(learn, AskPolicy)
def report_to_policy(state: AskPolicy, attempt: Record, now_s: float) -> None:
    """Leave the outcome to the driver."""
    state.clock[0].reported = attempt.task * ATTEMPTS + attempt.attempt - 1


@implement(place, GivenPlacements)
def place_as_given(  # noqa: PLR0917 (numba takes arguments by position)
    state: GivenPlacements, demand: Record, nodes: Records, arms: Records, order: Integers, options: Options
) -> None:
    """There is no second choice: a task whose node failed it is refused."""
    decision, arm = options.decision[0], state.arms[demand.number]
    decision.count = decision.capable = decision.full = decision.transient = 0
    decision.propensity, decision.index = 1.0, NONE
    if arm == NONE or demand.tries > 0:
        return
    estimate = options.estimates[0]
    estimate.arm, estimate.node, estimate.row = arm, arms[arm].node, 0
    estimate_arm(estimate, demand, arms[arm], nodes[arms[arm].node])
    decision.count = decision.capable = 1
    decision.index = 0
