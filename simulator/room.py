"""Room for the records of a run: blank ones, more tasks, more planned events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simulator.kernel import MOST_NOTES
from simulator.records import ATTEMPTS, CLOCK, DECIDED, ENDED, TASK, Run
from simulator.timeline import ENGINES, MOST_EVENTS, PER_TASK, ArrayHeap, ListHeap, is_low
from skyshore.rules.place import MOST_IN_SLOT
from skyshore.rules.records import ATTEMPT, NONE, get, in_form, integers, put, rows, with_room

NOTES_OF_ONE_EVENT = 4096
"""Decisions and ends that one event brings at most: those of a node that crashes."""


def blank_run(settings: Mapping[str, float], engines: int, most_slots: int, *, arrays: bool) -> Run:
    """A run in which nothing happened. `settings` are fields of its CLOCK; `with_tasks` must follow."""
    clock = rows(CLOCK, 1, arrays=arrays)
    put(clock[0], {"asked": NONE, "answered": NONE, "reported": NONE, "placed": NONE, **settings})
    return Run(
        clock=clock,
        heap=_blank_heap(4 * MOST_EVENTS, 0) if arrays else ListHeap([]),
        turns=integers(ENGINES + engines, arrays=arrays),
        tasks=rows(TASK, 0, arrays=arrays),
        after=integers(0, arrays=arrays),
        free=integers(0, arrays=arrays),
        placing=integers(1, arrays=arrays),
        gathered=integers(MOST_IN_SLOT + 1 if settings["slot_s"] else 1, arrays=arrays),
        attempts=rows(ATTEMPT, 0, arrays=arrays),
        leaving=integers(2 * most_slots + 2, arrays=arrays),
        decided=rows(DECIDED, MOST_NOTES + NOTES_OF_ONE_EVENT, arrays=arrays),
        ended=rows(ENDED, MOST_NOTES + NOTES_OF_ONE_EVENT, arrays=arrays),
    )


def with_tasks(run: Run, more: int) -> Run:
    """The same run with room for so many more tasks."""
    had, room, clock = len(run.tasks), len(run.tasks) + more, run.clock[0]
    count, arrays = get(clock, "free"), isinstance(run.tasks, np.ndarray)
    free = [*(int(number) for number in run.free[:count]), *range(room - 1, had - 1, -1)]
    put(clock, {"free": count + more})
    return run._replace(
        turns=extended(run.turns, more * PER_TASK),
        tasks=with_room(run.tasks, TASK, room),
        after=extended(run.after, more),
        free=in_form([*free, *[0] * (room - len(free))], arrays=arrays),
        placing=extended(run.placing, more),
        attempts=with_room(run.attempts, ATTEMPT, room * ATTEMPTS),
    )


def with_heap_room(run: Run) -> Run:
    """The same run with room for events: cancelled ones are taken out, and where that is too little, there is more."""
    heap = run.heap
    if isinstance(heap, ListHeap) or not is_low(heap):
        return run
    size = int(heap.size[0])
    times, turns, events = heap.times[:size], heap.turns[:size], heap.events[:size]
    kept = np.flatnonzero(run.turns[events] == turns)
    order = kept[np.lexsort((turns[kept], times[kept]))]  # sorted events are a heap
    blank = _blank_heap(max(len(heap.times), 2 * (len(order) + MOST_EVENTS)), len(order))
    for fresh, old in zip(blank[:3], (times, turns, events), strict=True):
        fresh[: len(order)] = old[order]
    return run._replace(heap=blank)


def extended(values: Any, more: int) -> Any:
    """The same integers and so many zeros after them. A list is extended in place."""
    if isinstance(values, np.ndarray):
        return np.concatenate([values, np.zeros(more, dtype=values.dtype)])
    values.extend([0] * more)
    return values


def _blank_heap(room: int, size: int) -> ArrayHeap:
    return ArrayHeap(
        np.zeros(room), np.zeros(room, np.int64), np.zeros(room, np.int64), np.array([size], dtype=np.int64)
    )
