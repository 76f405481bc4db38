"""Virtual time runs events in order of time and, of equal times, in the order in which they were planned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.records import CLOCK, Run
from simulator.timeline import (
    MOST_EVENTS,
    ArrayHeap,
    ListHeap,
    cancel_event,
    is_low,
    next_event,
    plan,
    plan_at_turn,
    pop,
    push,
)
from skyshore.rules.records import rows

EVENTS = 6
FORMS = pytest.mark.parametrize("arrays", [False, True])


def heap_of(arrays: bool) -> ListHeap | ArrayHeap:
    if not arrays:
        return ListHeap([])
    return ArrayHeap(np.zeros(200), np.zeros(200, np.int64), np.zeros(200, np.int64), np.zeros(1, np.int64))


def run_of(arrays: bool) -> Run:
    """Only what the timeline uses."""
    empty = dict.fromkeys(Run._fields)
    return Run(**empty | {"clock": rows(CLOCK, 1, arrays=False), "heap": heap_of(arrays), "turns": [0] * EVENTS})


# Whole numbers on purpose: many things happen at the same time, and then their order counts.
steps = st.lists(
    st.tuples(
        st.sampled_from(["plan", "plan", "plan", "cancel", "next"]),
        st.integers(0, EVENTS - 1),
        st.integers(0, 5).map(float),
    ),
    max_size=60,
)


@FORMS
@given(steps)
def test_the_first_planned_of_the_earliest_comes_first(arrays, history):
    """Against a list that is searched each time: a later plan of an event replaces the earlier one."""
    run, planned, turn = run_of(arrays), {}, 0
    for step, event, time_s in history:
        now_s = run.clock[0].now_s
        if step == "plan":
            turn += 1
            planned[event] = (max(time_s, now_s), turn)
            plan(run, event, time_s)
        elif step == "cancel":
            planned.pop(event, None)
            cancel_event(run, event)
        elif planned:
            expected = min(planned, key=planned.get)
            assert next_event(run) == expected
            assert run.clock[0].now_s == planned.pop(expected)[0]


@FORMS
def test_an_event_planned_at_an_earlier_turn_comes_as_if_planned_then(arrays):
    run = run_of(arrays)
    plan(run, 0, 1.0)
    run.clock[0].turns += 1
    kept = int(run.clock[0].turns)
    plan(run, 1, 1.0)
    plan_at_turn(run, 2, 1.0, kept)
    assert [next_event(run) for _ in range(3)] == [0, 2, 1]
    assert run.clock[0].events == 3


@given(st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(1, 99), st.integers(0, 9)), max_size=100))
def test_both_heaps_hand_out_the_same_events(items):
    items = [(time_s, turn + 100 * index, event) for index, (time_s, turn, event) in enumerate(items)]
    heaps = heap_of(False), heap_of(True)
    for item in items:
        for heap in heaps:
            push(heap, *item)
    for heap in heaps:
        assert [pop(heap) for _ in items] == sorted(items)


def test_a_heap_of_arrays_says_when_its_room_runs_out():
    room = MOST_EVENTS + 2
    heap = ArrayHeap(np.zeros(room), np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(1, np.int64))
    full = []
    for turn in range(4):
        full.append(bool(is_low(heap)))
        push(heap, 1.0, turn, 0)
    assert full == [False, False, False, True]
    assert not is_low(ListHeap([]))
