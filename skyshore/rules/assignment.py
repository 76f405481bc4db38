"""Joint assignment of a slot's tasks to arms within the capacity of the nodes: greedy by regret, then moves and swaps.

This is the generalised assignment problem, which is NP-hard. The tests compare the result with the exact optimum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE, Floats, Integers, floats, integers

MOST_IMPROVED = 64
"""With more tasks in a slot, the result of the greedy pass is final."""
PASSES = 3
NO_ARM_SCORE = -1e9
"""Score of a task that gets no arm."""
SLACK = 1e-12
"""Tolerance: a need may exceed the room by this much, and an improvement must be larger."""


class Assignment(NamedTuple):
    """Scores and needs of the tasks of one slot. There are two resources: places for tasks, and bytes per second."""

    scores: Floats
    """[tasks][arms] score; −∞ where a task cannot take the arm."""
    rates: Floats
    """[tasks][arms] bytes per second that the task needs there, besides room for one task."""
    node: Integers
    """[arms] node of each arm."""
    task_room: Floats
    """[nodes] tasks that the node still takes; `assign` lowers it."""
    rate_room: Floats
    """[nodes] bytes per second that the link still carries; `assign` lowers it."""
    choice: Integers
    """[tasks] the arm of each task, or NONE."""
    order: Integers
    """[tasks] numbers of the tasks to assign; `assign` sorts a copy by regret."""
    by_regret: Integers
    """[tasks] numbers of the tasks, largest regret first."""
    regret: Floats
    """[tasks] used by the sort."""


def blank_assignment(tasks: int, arms: int, nodes: int) -> Assignment:
    """Room for so many tasks, arms and nodes, as lists."""
    return Assignment(
        scores=floats(tasks, arms, arrays=False),
        rates=floats(tasks, arms, arrays=False),
        node=integers(arms, arrays=False),
        task_room=floats(nodes, arrays=False),
        rate_room=floats(nodes, arrays=False),
        choice=integers(tasks, arrays=False),
        order=integers(tasks, arrays=False),
        by_regret=integers(tasks, arrays=False),
        regret=floats(tasks, arrays=False),
    )


@kernel
def assign(problem: Assignment, tasks: int, arms: int) -> None:
    """Assign as many of the first `tasks` in `order` as fit, and make the sum of their scores large."""
    for place in range(tasks):
        problem.choice[problem.order[place]] = NONE
    sort_by_regret(problem, tasks, arms)
    for place in range(tasks):
        task = problem.by_regret[place]
        arm = best_fitting(problem, task, arms)
        if arm != NONE:
            put_on(problem, task, arm)
    if tasks <= MOST_IMPROVED:
        for _ in range(PASSES):
            if not improve(problem, tasks, arms):
                break


@kernel
def sort_by_regret(problem: Assignment, tasks: int, arms: int) -> None:
    """Sort by the loss from the second best arm, the largest loss first; equal tasks keep their order."""
    for place in range(tasks):
        task = problem.order[place]
        regret = regret_of(problem.scores[task], arms)
        before = place
        while before > 0 and problem.regret[before - 1] > regret:
            problem.regret[before] = problem.regret[before - 1]
            problem.by_regret[before] = problem.by_regret[before - 1]
            before -= 1
        problem.regret[before], problem.by_regret[before] = regret, task


@kernel
def regret_of(scores: Floats, arms: int) -> float:
    """Second best score minus best score, so never positive; with a single arm, minus its score."""
    if arms == 1:
        return float(-scores[0])
    best = second = -math.inf
    for arm in range(arms):
        score = max(scores[arm], NO_ARM_SCORE)
        if score > best:
            best, second = score, best
        elif score > second:
            second = score
    return second - best


@kernel
def best_fitting(problem: Assignment, task: int, arms: int) -> int:
    """The arm of the largest score that has room for a task, or NONE."""
    scores, rates, best, found = problem.scores[task], problem.rates[task], -math.inf, NONE
    for arm in range(arms):
        if scores[arm] > best:
            node = problem.node[arm]
            if problem.task_room[node] + SLACK >= 1.0 and rates[arm] <= problem.rate_room[node] + SLACK:
                best, found = scores[arm], arm
    return found


@kernel
def put_on(problem: Assignment, task: int, arm: int) -> None:
    """Give a task an arm, and reserve its capacity."""
    node = problem.node[arm]
    problem.choice[task] = arm
    problem.task_room[node] -= 1.0
    problem.rate_room[node] -= problem.rates[task][arm]


@kernel
def take_off(problem: Assignment, task: int) -> int:
    """Take the arm away from a task, if it has one, and release its capacity. Returns the arm or NONE."""
    arm = problem.choice[task]
    if arm != NONE:
        node = problem.node[arm]
        problem.task_room[node] += 1.0
        problem.rate_room[node] += problem.rates[task][arm]
        problem.choice[task] = NONE
    return int(arm)


@kernel
def score_of(problem: Assignment, task: int, arm: int) -> float:
    """The score of a task on an arm or on none."""
    return float(problem.scores[task][arm]) if arm != NONE else NO_ARM_SCORE


@kernel
def improve(problem: Assignment, tasks: int, arms: int) -> bool:
    """Try every move and every swap once. True if one was made."""
    changed = False
    for place in range(tasks):
        task = problem.order[place]
        if move(problem, task, arms):
            changed = True
        for other in range(place):
            if swap(problem, task, problem.order[other], arms):
                changed = True
    return changed


@kernel
def move(problem: Assignment, task: int, arms: int) -> bool:
    """Move a task to a better arm that has room."""
    before = take_off(problem, task)
    after = best_fitting(problem, task, arms)
    better = score_of(problem, task, after) > score_of(problem, task, before) + SLACK
    chosen = after if better else before
    if chosen != NONE:
        put_on(problem, task, chosen)
    return better


@kernel
def swap(problem: Assignment, one: int, two: int, arms: int) -> bool:
    """Assign two tasks again, one before the other, if the sum of their scores grows."""
    was_one, was_two = take_off(problem, one), take_off(problem, two)
    before = score_of(problem, one, was_one) + score_of(problem, two, was_two)
    if assign_pair(problem, one, two, before, arms) or assign_pair(problem, two, one, before, arms):
        return True
    if was_one != NONE:
        put_on(problem, one, was_one)
    if was_two != NONE:
        put_on(problem, two, was_two)
    return False


@kernel
def assign_pair(problem: Assignment, first: int, second: int, before: float, arms: int) -> bool:
    """Give the first task its best arm, then the second its best of the rest, if their sum exceeds `before`."""
    arm = best_fitting(problem, first, arms)
    if arm == NONE:
        return False
    put_on(problem, first, arm)
    other = best_fitting(problem, second, arms)
    if score_of(problem, first, arm) + score_of(problem, second, other) > before + SLACK:
        if other != NONE:
            put_on(problem, second, other)
        return True
    take_off(problem, first)
    return False
