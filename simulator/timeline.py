"""Virtual time: events by number, run in order of time; of equal times, in the order in which they were planned."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from simulator.records import ATTEMPTS, Run
from skyshore.rules.kernel import generic, implement, kernel
from skyshore.rules.records import Floats, Integers

# Events of the run, then the end of each engine's run of iterations, then those of each task.
ARRIVE, BEAT, CLOSE, SLOT, CALL, ENGINES = range(6)
DEADLINE, REACH, SERVED, BACK, REPORTED = range(5)
"""Of one task, in this order; one REPORTED an attempt."""
PER_TASK = REPORTED + ATTEMPTS
MOST_EVENTS = 4096
"""Events that one event plans at most."""


class ListHeap(NamedTuple):
    """Planned events for plain Python."""

    items: list[Any]


class ArrayHeap(NamedTuple):
    """Planned events for machine code."""

    times: Floats
    turns: Integers
    events: Integers
    size: Integers


@generic
def push(heap: object, time_s: float, turn: int, event: int) -> None:
    """Add an event."""


@generic
def pop(heap: object) -> tuple[float, int, int]:
    """Take the first event off: its time, turn and number."""
    return 0.0, 0, 0


@generic
def is_low(heap: object) -> bool:
    """Whether the room for events may be too small for the next event."""
    return False


@implement(is_low, ArrayHeap)
def arrays_are_low(heap: ArrayHeap) -> bool:
    """See `is_low`."""
    return bool(heap.size[0] + MOST_EVENTS > len(heap.times))


@implement(push, ListHeap)
def push_to_list(heap: ListHeap, time_s: float, turn: int, event: int) -> None:
    """See `push`."""
    heappush(heap.items, (time_s, turn, event))


@implement(pop, ListHeap)
def pop_from_list(heap: ListHeap) -> tuple[float, int, int]:
    """See `pop`."""
    first: tuple[float, int, int] = heappop(heap.items)
    return first


@implement(push, ArrayHeap)
def push_to_arrays(heap: ArrayHeap, time_s: float, turn: int, event: int) -> None:
    """See `push`."""
    times, turns, events = heap.times, heap.turns, heap.events
    place = heap.size[0]
    heap.size[0] += 1
    while place > 0:
        above = (place - 1) >> 1
        if times[above] < time_s or (times[above] == time_s and turns[above] < turn):
            break
        times[place], turns[place], events[place] = times[above], turns[above], events[above]
        place = above
    times[place], turns[place], events[place] = time_s, turn, event


@implement(pop, ArrayHeap)
def pop_from_arrays(heap: ArrayHeap) -> tuple[float, int, int]:
    """See `pop`."""
    times, turns, events = heap.times, heap.turns, heap.events
    first = times[0], turns[0], events[0]
    heap.size[0] -= 1
    size = heap.size[0]
    time_s, turn, event, place = times[size], turns[size], events[size], 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        right = below + 1
        if right < size and (
            times[right] < times[below] or (times[right] == times[below] and turns[right] < turns[below])
        ):
            below = right
        if time_s < times[below] or (time_s == times[below] and turn < turns[below]):
            break
        times[place], turns[place], events[place] = times[below], turns[below], events[below]
        place = below
    times[place], turns[place], events[place] = time_s, turn, event
    return first


@kernel
def task_event(engines: int, task: int, which: int) -> int:
    """Number of a task's event."""
    return ENGINES + engines + task * PER_TASK + which


@kernel
def plan(run: Run, event: int, time_s: float) -> None:
    """Let an event happen then; a time that has passed means now. It replaces the same event planned before."""
    clock = run.clock[0]
    clock.turns += 1
    run.turns[event] = clock.turns
    push(run.heap, time_s if time_s > clock.now_s else clock.now_s, clock.turns, event)


@kernel
def plan_at_turn(run: Run, event: int, time_s: float, turn: int) -> None:
    """`plan`, as if called when `turn` was taken."""
    run.turns[event] = turn
    push(run.heap, time_s, turn, event)


@kernel
def cancel_event(run: Run, event: int) -> None:
    """Let an event not happen; nothing changes if it was not planned."""
    run.turns[event] = 0


@kernel
def next_event(run: Run) -> int:
    """Move the clock to the first event that was not cancelled, and take it off."""
    while True:
        time_s, turn, event = pop(run.heap)
        if run.turns[event] == turn:
            run.turns[event] = 0
            clock = run.clock[0]
            clock.now_s = time_s
            clock.events += 1
            return event


@kernel
def hold(run: Run, task: int) -> None:
    """Add a reason to keep a task's record."""
    run.tasks[task].holds += 1


@kernel
def release(run: Run, task: int) -> None:
    """Remove a reason to keep a task's record; after the last one, its number is free."""
    run.tasks[task].holds -= 1
    if run.tasks[task].holds == 0:
        run.free[run.clock[0].free] = task
        run.clock[0].free += 1
