"""The ways to nodes and the engines there, as `skyshore` keeps account of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.policies.engine_queues import EngineQueues
from skyshore.policies.skyshore import Skyshore
from skyshore.policies.uplinks import Uplink
from tests.fakes.arms import arms_of, context

FRAME_BYTES = 30_000.0
FAST, SLOW = 1e-7, 1e-6
"""Seconds per byte: a frame takes 3 and 30 ms."""


def test_answers_tell_how_slow_a_way_is_and_what_is_still_on_it():
    """Ten frames handed over at once on a way ten times slower than stated; three have been answered."""
    way = Uplink()
    marks = [way.send(5.0, FRAME_BYTES, FAST) for _ in range(10)]
    assert way.free_at_s == pytest.approx(5.0 + 10 * FRAME_BYTES * FAST)
    for done, mark in enumerate(marks[:3], start=1):
        way.sent(mark, 5.0 + done * FRAME_BYTES * SLOW, computed_s=0.002, stated_pace=FAST)
    assert way.pace == pytest.approx(SLOW)
    assert way.free_at_s == pytest.approx(5.0 + 10 * FRAME_BYTES * SLOW)


def test_an_answer_clears_the_bytes_of_tasks_given_up_before_it():
    way = Uplink()
    way.send(0.0, FRAME_BYTES, SLOW)
    second = way.send(0.0, FRAME_BYTES, SLOW)
    way.sent(second, 0.06, computed_s=0.0, stated_pace=SLOW)
    assert way.free_at_s == pytest.approx(0.06)


def test_a_way_on_which_everything_is_late_is_found_out_without_a_single_answer():
    way = Uplink()
    marks = [way.send(0.02 * number, FRAME_BYTES, FAST) for number in range(10)]
    for number, mark in enumerate(marks[:5]):
        way.late(mark, 0.02 * number + 0.2, stated_pace=FAST)
    assert way.pace > 3 * FAST
    assert way.free_at_s > 0.3


def test_a_task_given_up_though_its_bytes_must_have_been_there_says_nothing_of_the_way():
    way = Uplink()
    mark = way.send(0.0, FRAME_BYTES, SLOW)
    way.late(mark, 0.01, stated_pace=SLOW)
    assert way.pace == 0.0


def test_answers_of_a_busy_engine_and_small_messages_say_nothing_of_the_way():
    way = Uplink()
    marks = [way.send(0.0, FRAME_BYTES, FAST) for _ in range(5)] + [way.send(9.0, 500.0, FAST)]
    for done, mark in enumerate(marks[:5], start=1):
        way.sent(mark, 0.1 * done, computed_s=0.1 * done + 1e-9, stated_pace=FAST)
    way.sent(marks[5], 9.5, computed_s=0.0, stated_pace=FAST)
    assert way.pace == 0.0


def test_a_rate_not_seen_for_long_is_not_believed_any_more():
    way = Uplink()
    way.sent(way.send(0.0, FRAME_BYTES, FAST), 0.03, computed_s=0.0, stated_pace=FAST)
    assert way.pace == pytest.approx(SLOW)
    way.send(60.0, FRAME_BYTES, FAST)
    assert way.pace == 0.0
    assert way.free_at_s == pytest.approx(60.003)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 3.0), st.floats(0.01, 2.0)), min_size=1, max_size=12),
    st.data(),
)
def test_an_engine_is_free_when_a_first_come_first_served_queue_says_so(tasks, data):
    """Against the recursion worked out from scratch; at any moment any task may leave."""
    queues = EngineQueues()
    number = queues.slots.of_arm("n/m")
    now_s, there, expected = 10.0, {}, 0.0
    for place, (pause_s, way_s, work_s) in enumerate(tasks):
        now_s += pause_s
        there[f"t{place}"] = (now_s + way_s, work_s)
        queues.add(number, f"t{place}", now_s + way_s, work_s)
        expected = max(expected, now_s + way_s) + work_s
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(there)))
            queues.drop(number, gone, now_s)
            del there[gone]
            expected = now_s
            for ready_s, left_s in there.values():
                expected = max(expected, ready_s) + left_s
    assert queues.of(arms_of(1, table=replace(arms_of(1).table, engines=("n/m",))))[0] == pytest.approx(expected)


def test_whoever_was_before_an_answered_task_is_gone_too():
    """Of a task that its user gave up nobody tells the policy; what came after it on the same engine does."""
    queues = EngineQueues()
    number = queues.slots.of_arm("n/m")
    for name in ("given up", "answered", "waiting"):
        queues.add(number, name, 1.0, 10.0)
    engine = arms_of(1, table=replace(arms_of(1).table, engines=("n/m",)))
    queues.drop(number, "answered", 5.0, answered=True)
    assert queues.of(engine)[0] == pytest.approx(15.0)
    queues.drop(number, "given up", 6.0)
    assert queues.of(engine)[0] == pytest.approx(15.0)


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


def test_a_newcomer_breaks_nobodys_deadline_where_the_first_comes_first():
    """Ten tasks with hardly time enough wait for one engine; one more with all the time in the world may join them."""
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=0.1, joules=[1.0, 2.0])
    for number in range(8):
        placed = policy.select(context(1.0, task_id=f"tight{number}", deadline_s=0.16 + 0.15 * number), world)
        assert placed.index == 0
    assert policy.select(context(1.0, task_id="patient", deadline_s=60.0), world).index == 0


def test_a_way_is_not_filled_beyond_what_it_carries_in_time():
    """Thirty tasks at once, the cheap node behind a way on which each takes 30 ms: 0.2 s hold six; the rest goes on."""
    policy = Skyshore(np.random.default_rng(0))
    columns = {"service_s": 0.004, "up_bytes": FRAME_BYTES, "up_bytes_per_s": [1.0 / SLOW, 1.0 / (SLOW / 100.0)]}
    world = arms_of(2, transmission_s=[0.03, 0.0003], joules=[1.0, 3.0], **columns)
    chosen = [policy.select(context(1.0, task_id=f"t{i}", deadline_s=0.2), world).index for i in range(30)]
    assert 3 <= chosen.count(0) <= 6
    assert chosen.count(1) >= 20
