"""`simulator.timeline` on arrays: every event that can happen has a fixed number, so it can be found and called off."""

from __future__ import annotations

from simulator.compiled.jit import compiled
from simulator.compiled.layout import ATTEMPTS, NONE, Fleet, Numbers, Records, Run

# Events of the run, then the end of each server's iterations, then those of each task.
ARRIVE, BEAT, CLOSE, SERVERS = 0, 1, 2, 3
DEADLINE, REACH, SERVED, BACK, HEAR = 0, 1, 2, 3, 4
"""Of one task, in this order; one HEAR an attempt."""
PER_TASK = HEAR + ATTEMPTS


@compiled
def task_event(fleet: Fleet, task: int, which: int) -> int:
    """Number of a task's event."""
    return SERVERS + len(fleet.servers) + task * PER_TASK + which


@compiled
def let_go(run: Run, task: int) -> None:
    """One reason fewer to remember a task; after the last one, its place is free."""
    run.tasks[task].holds -= 1
    if run.tasks[task].holds == 0:
        run.free[run.clock[0].free] = task
        run.clock[0].free += 1


@compiled
def plan(run: Run, event: int, time_s: float) -> None:
    """Let it happen then; a time that has passed means now. Of equal times, the order of planning counts."""
    clock, record = run.clock[0], run.events[event]
    record.time_s = time_s if time_s > clock.now_s else clock.now_s
    clock.turns += 1
    record.turn = clock.turns
    run.heap[clock.planned] = event
    record.place = clock.planned
    clock.planned += 1
    _rise(run.events, run.heap, record.place)


@compiled
def call_off(run: Run, event: int) -> None:
    """Let it not happen; nothing happens when it was not planned."""
    place = run.events[event].place
    if place == NONE:
        return
    run.events[event].place = NONE
    clock = run.clock[0]
    clock.planned -= 1
    last = run.heap[clock.planned]
    if last != event:
        run.heap[place] = last
        run.events[last].place = place
        _rise(run.events, run.heap, place)
        _sink(run.events, run.heap, clock.planned, run.events[last].place)


@compiled
def next_event(run: Run) -> int:
    """Move the clock to the first event planned, and take it off."""
    event = run.heap[0]
    run.clock[0].now_s = run.events[event].time_s
    call_off(run, event)
    return int(event)


@compiled
def _before(events: Records, left: int, right: int) -> bool:
    one, other = events[left], events[right]
    return bool(one.time_s < other.time_s or (one.time_s == other.time_s and one.turn < other.turn))


@compiled
def _rise(events: Records, heap: Numbers, place: int) -> None:
    event = heap[place]
    while place > 0:
        above = (place - 1) >> 1
        if not _before(events, event, heap[above]):
            break
        heap[place] = heap[above]
        events[heap[place]].place = place
        place = above
    heap[place] = event
    events[event].place = place


@compiled
def _sink(events: Records, heap: Numbers, size: int, place: int) -> None:
    event = heap[place]
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _before(events, heap[below + 1], heap[below]):
            below += 1
        if not _before(events, heap[below], event):
            break
        heap[place] = heap[below]
        events[heap[place]].place = place
        place = below
    heap[place] = event
    events[event].place = place
