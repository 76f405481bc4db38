"""The links to nodes and the engines there, as `skyshore` keeps account of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.policies.own.skyshore import Skyshore
from tests.fakes.arms import arms_of, context
from tests.fakes.skyshore_rules import FlightTable, Uplink

FRAME_BYTES = 30_000.0
FAST, SLOW = 1e-7, 1e-6
"""Seconds per byte: a frame takes 3 and 30 ms."""


def test_answers_tell_how_slow_a_link_is_and_what_is_still_on_it():
    """Ten frames handed over at once on a link ten times slower than stated; three have been answered."""
    link = Uplink()
    marks = [link.send(5.0, FRAME_BYTES, FAST) for _ in range(10)]
    assert link.node.free_at_s == pytest.approx(5.0 + 10 * FRAME_BYTES * FAST)
    for done, mark in enumerate(marks[:3], start=1):
        link.confirm(mark, 5.0 + done * FRAME_BYTES * SLOW, computed_s=0.002, stated=FAST)
    assert link.node.s_per_byte == pytest.approx(SLOW)
    assert link.node.free_at_s == pytest.approx(5.0 + 10 * FRAME_BYTES * SLOW)


def test_an_answer_clears_the_bytes_of_tasks_given_up_before_it():
    link = Uplink()
    link.send(0.0, FRAME_BYTES, SLOW)
    second = link.send(0.0, FRAME_BYTES, SLOW)
    link.confirm(second, 0.06, computed_s=0.0, stated=SLOW)
    assert link.node.free_at_s == pytest.approx(0.06)


def test_a_slow_link_is_noticed_without_a_single_answer():
    link = Uplink()
    marks = [link.send(0.02 * number, FRAME_BYTES, FAST) for number in range(10)]
    for number, mark in enumerate(marks[:5]):
        link.note_late(mark, 0.02 * number + 0.2, stated=FAST)
    assert link.node.s_per_byte > 3 * FAST
    assert link.node.free_at_s > 0.3


def test_a_task_given_up_though_its_bytes_must_have_been_there_is_no_sample_of_the_link():
    link = Uplink()
    mark = link.send(0.0, FRAME_BYTES, SLOW)
    link.note_late(mark, 0.01, stated=SLOW)
    assert link.node.s_per_byte == 0.0


def test_answers_of_a_busy_engine_and_small_messages_are_no_sample_of_the_link():
    link = Uplink()
    marks = [link.send(0.0, FRAME_BYTES, FAST) for _ in range(5)] + [link.send(9.0, 500.0, FAST)]
    for done, mark in enumerate(marks[:5], start=1):
        link.confirm(mark, 0.1 * done, computed_s=0.1 * done + 1e-9, stated=FAST)
    link.confirm(marks[5], 9.5, computed_s=0.0, stated=FAST)
    assert link.node.s_per_byte == 0.0


def test_an_old_rate_is_not_used_any_more():
    link = Uplink()
    link.confirm(link.send(0.0, FRAME_BYTES, FAST), 0.03, computed_s=0.0, stated=FAST)
    assert link.node.s_per_byte == pytest.approx(SLOW)
    link.send(60.0, FRAME_BYTES, FAST)
    assert link.node.s_per_byte == 0.0
    assert link.node.free_at_s == pytest.approx(60.003)


def test_a_full_list_of_sendings_takes_bytes_as_one_with_the_last():
    link = Uplink(rows_in_pool=2)
    marks = [link.send(1.0, FRAME_BYTES, SLOW) for _ in range(4)]
    assert link.node.free_at_s == pytest.approx(1.0 + 4 * FRAME_BYTES * SLOW)
    link.confirm(marks[3], 1.2, computed_s=0.0, stated=SLOW)
    assert link.node.s_per_byte == pytest.approx(0.2 / (4 * FRAME_BYTES))
    assert link.pools[0].free == 2


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 3.0), st.floats(0.01, 2.0)), min_size=1, max_size=12),
    st.data(),
)
def test_an_engine_is_free_when_a_first_come_first_served_queue_says_so(tasks, data):
    """Against the recursion computed from the start; at any moment any task may leave."""
    flights, now_s, there, expected = FlightTable(), 10.0, {}, 0.0
    for number, (pause_s, sent_s, work_s) in enumerate(tasks):
        now_s += pause_s
        there[number] = (now_s + sent_s, work_s)
        flights.add(0, number, now_s, engine=1, sent_s=sent_s, work_s=work_s, deadline_at_s=1e9)
        expected = max(expected, now_s + sent_s) + work_s
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(there)))
            flights.drop(gone, now_s)
            del there[gone]
            expected = now_s
            for ready_s, left_s in there.values():
                expected = max(expected, ready_s) + left_s
    assert flights.engine_free_at_s(1) == pytest.approx(expected)


def test_nobody_waits_any_more_before_an_answered_task():
    """Nobody reports a task that its user gave up; the next answer of the same engine shows that it is over."""
    flights = FlightTable()
    given_up, answered, waiting = range(3)
    for number in (given_up, answered, waiting):
        flights.add(0, number, 1.0, engine=0, work_s=10.0, deadline_at_s=100.0)
    flights.drop(answered, 5.0, answered=True)
    assert flights.engine_free_at_s(0) == pytest.approx(15.0)
    flights.drop(given_up, 6.0)
    assert flights.engine_free_at_s(0) == pytest.approx(15.0)


def two_engines_on_one_node():
    """Two models of one node, each with its own engine, and a third elsewhere that costs more."""
    plain = arms_of(3).table
    return replace(
        plain, node_ids=("n0", "n0", "n1"), node=np.array([0, 0, 1]), engines=("n0/small", "n0/large", "n1/small")
    )


def test_a_busy_engine_delays_its_own_tasks_and_not_its_neighbours():
    policy, table = Skyshore(np.random.default_rng(0)), two_engines_on_one_node()
    columns = {"table": table, "service_s": [0.1, 1.0, 0.1], "joules": [5.0, 1.0, 20.0]}
    assert policy.select(context(1.0, task_id="slow", deadline_s=3.0), arms_of(3, **columns)).index == 1
    # The core counts tasks by node, so its estimates of the queue are the same for both models.
    busy = arms_of(3, load=[1.0, 1.0, 0.0], queue_s=[1.0, 1.0, 0.0], **columns)
    assert policy.select(context(1.0, task_id="quick", deadline_s=0.3), busy).index == 0
    assert policy.select(context(1.0, task_id="patient", deadline_s=9.0), busy).index == 1


def test_a_new_task_breaks_no_deadline_where_the_first_comes_first():
    """Ten tasks with hardly time enough wait for one engine; one more with all the time in the world may join them."""
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=0.1, joules=[1.0, 2.0])
    for number in range(8):
        placed = policy.select(context(1.0, task_id=f"tight{number}", deadline_s=0.16 + 0.15 * number), world)
        assert placed.index == 0
    assert policy.select(context(1.0, task_id="patient", deadline_s=60.0), world).index == 0


def test_a_link_is_not_filled_beyond_what_it_carries_in_time():
    """Thirty tasks at once, and each takes 30 ms on the link of the cheap node: in 0.2 s it carries six."""
    policy = Skyshore(np.random.default_rng(0))
    columns = {"service_s": 0.004, "up_bytes": FRAME_BYTES, "up_bytes_per_s": [1.0 / SLOW, 1.0 / (SLOW / 100.0)]}
    world = arms_of(2, transmission_s=[0.03, 0.0003], joules=[1.0, 3.0], **columns)
    chosen = [policy.select(context(1.0, task_id=f"t{i}", deadline_s=0.2), world).index for i in range(30)]
    assert 3 <= chosen.count(0) <= 6
    assert chosen.count(1) >= 20
