"""The simulator's loop: events in order, until the run is over or somebody outside must be asked."""

from __future__ import annotations

from simulator.ends import (
    attempt_failed,
    end,
    engine_done,
    expire,
    reach,
    receive_outcome,
    report_outcome,
    segment_done,
)
from simulator.fleet import beat, boot
from simulator.placing import ASK, arrive, gather, note_slot, note_wait, plan_gathered, settle, time_left_s
from simulator.records import Plant, Run, View
from simulator.timeline import (
    ARRIVE,
    BACK,
    BEAT,
    CALL,
    CLOSE,
    DEADLINE,
    ENGINES,
    PER_TASK,
    REACH,
    REPORTED,
    SERVED,
    SLOT,
    is_low,
    next_event,
    plan,
    release,
)
from skyshore.rules.kernel import kernel
from skyshore.rules.place import place
from skyshore.rules.records import CANCELLED, FAILED, NONE, OK, Records

SMALL_SLOT = 8
"""Tasks of a slot that is ended without a return to the driver, which draws ahead for links between two tasks."""
MOST_NOTES = 8192
"""Decisions and ends of tasks after which the driver takes them back."""


@kernel
def start(run: Run, plant: Plant, view: View, requests: Records) -> None:
    """Boot all nodes, plan the first heartbeat and the first arrival."""
    clock = run.clock[0]
    for node in range(len(plant.states)):
        boot(run, plant, view, node)
    plan(run, BEAT, clock.heartbeat_s)
    clock.more = 1 if len(requests) else 0
    if clock.more:
        plan(run, ARRIVE, requests[0].at_s)
    else:
        plan(run, CLOSE, 0.0)


@kernel
def advance(run: Run, plant: Plant, view: View, state: object, requests: Records, last: bool) -> bool:  # noqa: PLR0917 (numba takes arguments by position)
    """Go on until the run is over, which is True, or until the driver must act, which is False.

    What a Python policy answered (`clock.answered`) is carried out first. The driver must act when a Python policy is
    asked or gets an outcome, a call is due, a slot has ended, or something is used up: room for tasks or notes,
    deviates drawn ahead, or requests. One request is always kept, because the next arrival is planned as the one
    before it comes. `last`: no others follow.
    """
    clock = run.clock[0]
    if clock.answered != NONE:
        carry_out(run, plant, view, clock.answered)
        clock.answered = NONE
    while not clock.stopped and clock.placed == NONE:
        if run.placing[0]:
            if clock.decided >= MOST_NOTES or clock.ended >= MOST_NOTES or plant.links.low[0] or is_low(run.heap):
                return False
            place_first(run, plant, view, state)
            if clock.asked != NONE:
                return False
            continue
        if (not last and clock.next_request >= len(requests) - 1) or clock.free == 0:
            return False
        if plant.links.low[0] or clock.ended >= MOST_NOTES or is_low(run.heap):
            return False
        dispatch_event(run, plant, view, state, requests, next_event(run))
        if clock.slot_over and run.gathered[0] <= clock.slot_room:
            end_slot(run, plant, view, state)
        if clock.reported != NONE or clock.called or clock.slot_over:
            return False
    return bool(clock.stopped and clock.placed == NONE)


@kernel
def dispatch_event(run: Run, plant: Plant, view: View, state: object, requests: Records, event: int) -> None:  # noqa: PLR0917 (numba takes arguments by position)
    """Let an event happen."""
    clock = run.clock[0]
    if event >= ENGINES + len(plant.engines):
        task_happens(run, plant, view, state, event - ENGINES - len(plant.engines))
    elif event >= ENGINES:
        engine_done(run, plant, event - ENGINES)
    elif event == ARRIVE:
        arrive(run, len(plant.engines), requests)
    elif event == BEAT:
        beat(run, plant, view)
        clock.slot_over = 1 if run.gathered[0] else 0
        plan(run, BEAT, clock.now_s + clock.heartbeat_s)
    elif event == SLOT:
        clock.slot_over = 1 if run.gathered[0] else 0
    elif event == CALL:
        clock.called = 1
    else:
        clock.stopped = 1


@kernel
def task_happens(run: Run, plant: Plant, view: View, state: object, event: int) -> None:
    """An event of one task."""
    number, which = divmod(event, PER_TASK)
    if which == REACH:
        reach(run, plant, view, number)
    elif which == SERVED:
        segment_done(run, plant, number)
    elif which == BACK:
        end(run, plant, view, number, OK)
    elif which == DEADLINE:
        expire(run, plant, view, number)
    else:
        receive_outcome(run, view, state, number, which - REPORTED)
        release(run, number)


@kernel
def place_first(run: Run, plant: Plant, view: View, state: object) -> None:
    """Decide on the first task that waits to be placed; a Python policy is asked through `clock.asked`."""
    clock, line = run.clock[0], run.placing
    number = line[1]
    line[0] -= 1
    for index in range(1, line[0] + 1):
        line[index] = line[index + 1]
    task = run.tasks[number]
    if task.lost:
        task.lost = 0
        if not attempt_failed(run, plant, view, number, FAILED):
            return
    task.attempt += 1
    note_wait(run, view, task)
    if clock.slot_s > 0 and task.attempt == 1:
        if not gather(run, number):
            end(run, plant, view, number, task.status)
        return
    task.now_s, task.remaining_s = clock.now_s, task.deadline_s - task.waited_s
    decide_on(run, plant, view, state, number)


@kernel
def decide_on(run: Run, plant: Plant, view: View, state: object, number: int) -> None:
    """Ask the policy for the arm of a task, and carry its answer out."""
    decision = view.options.decision[0]
    decision.index = NONE
    place(state, run.tasks[number], view.nodes, view.arms, view.order, view.options)
    if decision.count > 0 and decision.index == ASK:
        run.clock[0].asked = number
    else:
        carry_out(run, plant, view, number)


@kernel
def carry_out(run: Run, plant: Plant, view: View, number: int) -> None:
    """Do what was decided on a task."""
    task = run.tasks[number]
    placed = settle(run, plant, view, number)
    if not placed and not task.over:
        end(run, plant, view, number, task.status)
    elif placed and task.over:  # its deadline came before its slot's end
        run.attempts[task.attempt_number].status = CANCELLED
        report_outcome(run, plant, number)


@kernel
def end_slot(run: Run, plant: Plant, view: View, state: object) -> None:
    """Place what the slot gathered, nearest deadline first; each sees the room that the ones before it took."""
    line, clock = run.gathered, run.clock[0]
    count = line[0]
    for unsorted in range(2, count + 1):  # an insertion sort: slots are small, and equal ones keep their order
        number, place = line[unsorted], unsorted
        while place > 1 and time_left_s(run, line[place - 1]) > time_left_s(run, number):
            line[place] = line[place - 1]
            place -= 1
        line[place] = number
    if clock.plans_slots:
        plan_gathered(run, view, state, line)
    clock.slot_over = line[0] = 0
    for place in range(1, count + 1):
        decide_gathered(run, plant, view, state, line[place])
        release(run, line[place])


@kernel
def decide_gathered(run: Run, plant: Plant, view: View, state: object, number: int) -> None:
    """Decide on a task of a slot that has ended."""
    note_slot(run, number)
    decide_on(run, plant, view, state, number)
