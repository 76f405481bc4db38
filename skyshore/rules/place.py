"""One decision from beginning to end, for a policy whose rule is a kernel."""

from __future__ import annotations

from skyshore.rules.choose import decide, note_task, plan_slot
from skyshore.rules.eligible import list_options
from skyshore.rules.kernel import generic, kernel
from skyshore.rules.records import Integers, Options, Record, Records

MOST_IN_SLOT = 10_000
"""Tasks that wait for the end of one slot, at most."""


@generic
def place(state: object, demand: Record, nodes: Records, arms: Records, order: Integers, options: Options) -> None:  # noqa: PLR0917 (numba takes arguments by position)
    """`list_options`, then the policy's choice, if there is at least one arm."""
    list_options(demand, nodes, arms, order, options)
    if options.decision[0].count > 0:
        decide(state, demand, options)


@kernel
def place_task(state: object, demand: Record, nodes: Records, arms: Records, order: Integers, options: Options) -> None:  # noqa: PLR0917 (numba takes arguments by position)
    """`place`, to be called from Python."""
    place(state, demand, nodes, arms, order, options)


@kernel
def offer_task(state: object, demand: Record, nodes: Records, arms: Records, order: Integers, options: Options) -> None:  # noqa: PLR0917 (numba takes arguments by position)
    """`list_options` of a task of a slot, then the policy's `note_task`, if there is at least one arm."""
    list_options(demand, nodes, arms, order, options)
    if options.decision[0].count > 0:
        note_task(state, demand, options)


@kernel
def plan_tasks(state: object) -> None:
    """`plan_slot`, to be called from Python."""
    plan_slot(state)
