"""Rules of placing on plain records: who may take a task, what it would cost, and what a slot counts for."""

import math

import pytest

from skyshore.rules.eligible import is_avoided, is_capable, list_options
from skyshore.rules.estimate import bytes_to_node, estimate_arm, expected_queue_s, service_seconds
from skyshore.rules.heartbeat import join, leave, measured_link, note_status
from skyshore.rules.link_guess import guess_link, mean, transfer_s
from skyshore.rules.place import place_task
from skyshore.rules.records import (
    ARM,
    ATTEMPT,
    DECISION,
    DEMAND,
    ESTIMATE,
    LLM,
    NODE,
    NONE,
    VIDEO_DETECT,
    Options,
    Record,
    put,
    rows,
)
from skyshore.rules.reserve import mark_full, release, reserve, start_attempt
from skyshore.rules.slack import deadline_slack, least_slack, spare_share


def one(dtype, **values: float) -> Record:
    record = rows(dtype, 1, arrays=False)[0]
    put(record, values)
    return record


def arm(**values: float) -> Record:
    stated = {"quality": 0.5, "context_tokens": 200.0, "stride": 1.0, "slots": 2.0, "model": 3}
    return one(ARM, **stated | values)


def demand(**values: float) -> Record:
    asked = {"prompt_tokens": 100, "expected_tokens": 50.0, "model": NONE, "kind": LLM, "remaining_s": 10.0}
    return one(DEMAND, **asked | values)


def node(**values: float) -> Record:
    record = rows(NODE, 1, arrays=False)[0]
    join(record)
    note_status(record, 0.0, 4.0, 0.0, False)
    put(record, values)
    return record


def options_for(count: int) -> Options:
    return Options(rows(DECISION, 1, arrays=False), rows(ESTIMATE, count, arrays=False), [0.0] * count)


@pytest.mark.parametrize(
    ("asked", "capable"),
    [
        ({}, True),
        ({"model": 3}, True),
        ({"model": 2}, False),
        ({"min_quality": 0.5}, True),
        ({"min_quality": 0.51}, False),
        ({"prompt_tokens": 150}, True),
        ({"prompt_tokens": 151}, False),
    ],
)
def test_an_arm_is_capable_by_model_quality_and_context(asked, capable):
    assert is_capable(demand(**asked), arm()) is capable


def test_only_nodes_that_failed_the_task_are_avoided():
    task = demand(tries=2)
    task.tried[:3] = [4, 6, 8]
    assert [is_avoided(task, number) for number in (4, 6, 8)] == [True, True, False]


def test_arms_are_listed_in_order_with_the_reasons_of_the_others():
    nodes = [node(), node(), node(), node()]
    full, stopping = nodes[1], nodes[2]
    note_status(full, 4.0, 4.0, 0.0, False)
    note_status(stopping, 0.0, 4.0, 0.0, True)
    arms = [arm(node=3), arm(node=1), arm(node=2), arm(node=0), arm(node=0, quality=0.1)]
    options = options_for(5)
    list_options(demand(min_quality=0.4), nodes, arms, [[5, 0, 1, 2, 3, 4]], options)
    decision = options.decision[0]
    assert (decision.capable, decision.count, decision.full) == (4, 2, 1)
    assert [(each.arm, each.row, each.node) for each in options.estimates[:2]] == [(0, 0, 3), (3, 3, 0)]
    avoiding = demand(tries=1)
    avoiding.tried[0] = 3
    list_options(avoiding, nodes, arms, [[1, 0]], options)
    assert (decision.capable, decision.count, decision.full) == (1, 0, 0)


def test_nothing_to_choose_from_asks_no_policy():
    options = options_for(1)
    place_task(None, demand(), [], [], [[0], [0], [0]], options)
    assert options.decision[0].count == 0


@pytest.mark.parametrize(
    ("load", "own", "backlog_s", "expected"),
    [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 6.0, 0.0), (2.0, 2.0, 6.0, 1.5), (3.0, 2.0, 6.0, 3.0), (3.0, 0.0, 0.0, 5.0)],
)
def test_the_wait_is_for_the_tasks_beyond_the_free_slots(load, own, backlog_s, expected):
    """Two slots; the mean work of ours is 3 s, and 5 s is taken where none of ours is there."""
    assert expected_queue_s(load, own, 2.0, backlog_s, 5.0) == expected


def test_service_and_bytes_follow_from_tokens_and_frames():
    chat, clip = demand(input_bytes=400.0), demand(kind=VIDEO_DETECT, frames=10, input_bytes=5000.0)
    speeds = arm(prefill_s_per_token=0.001, decode_s_per_token=0.02, frame_s=0.1, stride=4.0)
    assert service_seconds(chat, speeds) == pytest.approx(0.1 + 1.0)
    assert bytes_to_node(chat, speeds) == 400.0
    assert service_seconds(clip, speeds) == pytest.approx(0.3), "3 of 10 frames with a stride of 4"
    assert bytes_to_node(clip, speeds) == pytest.approx(3 * 500.0), "the size that came in, where none is stated"
    assert bytes_to_node(clip, arm(stride=4.0, bytes_per_frame=90.0)) == 270.0


def test_an_estimate_adds_up():
    estimate = rows(ESTIMATE, 1, arrays=False)[0]
    fast = arm(decode_s_per_token=0.02, busy_watts=10.0)
    here = node(bytes_per_s=1000.0, rtt_s=0.2, joules_per_byte=0.01)
    estimate_arm(estimate, demand(input_bytes=500.0), fast, here)
    assert estimate.latency_s == pytest.approx(0.2 + 0.5 + 1.0)
    assert estimate.joules == pytest.approx(10.0 + 5.0)
    assert estimate.spare_share == pytest.approx(0.75), "room for three more of four"


def test_slack_is_the_least_of_deadline_room_link_and_memory():
    assert deadline_slack(2.0, 8.0) == 0.75
    assert spare_share(1.0, 4.0, 100.0, 20.0, 100.0, 0.1, 2.0) == pytest.approx(0.3), "the link: 1 - (20 + 50) / 100"
    assert spare_share(3.0, 4.0, 0.0, 0.0, math.inf, 0.1, 2.0) == 0.0
    assert spare_share(0.0, 4.0, 0.0, 0.0, math.inf, 0.9, 2.0) == pytest.approx(0.1)
    assert least_slack(one(ESTIMATE, latency_s=9.0, spare_share=0.4), 10.0) == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------ heartbeats


def test_a_heartbeat_counts_only_what_cannot_be_ours_as_foreign():
    record = node(own=2.0)
    note_status(record, 3.0, 8.0, 0.25, False)
    assert (record.foreign, record.capacity, record.kv_used, record.open) == (1.0, 8.0, 0.25, 1)
    record.own = 0.0
    note_status(record, 2.0, 8.0, 0.0, False)
    assert record.foreign == 0.0, "the report may be older than the end of our two tasks"
    note_status(record, 2.0, 8.0, 0.0, False)
    note_status(record, 2.0, 8.0, 0.0, False)
    assert record.foreign == 2.0, "by now they are surely others'"


def test_a_node_that_left_or_drains_takes_nothing():
    record = node()
    leave(record)
    assert (record.present, record.open) == (0, 0)
    join(record)
    note_status(record, 0.0, 1.0, 0.0, True)
    assert (record.present, record.open) == (1, 0)


def test_a_measured_link_ends_guessing_and_a_rate_of_0_is_unknown():
    record = node()
    measured_link(record, 0.0, 0.1, 0.5)
    assert (record.bytes_per_s, record.rtt_s, record.joules_per_byte, record.guessing) == (math.inf, 0.1, 0.5, 0)
    measured_link(record, 10.0, 0.1, 0.5)
    assert record.bytes_per_s == 10.0


def test_large_transfers_show_the_rate_and_small_ones_the_round_trip():
    record = node()
    guess_link(record, one(ATTEMPT, measured_s=1.2, queued_s=0.5, compute_s=0.5, sent_bytes=100.0))
    assert (record.rtt_s, record.bytes_per_s, record.joules_per_byte) == (pytest.approx(0.2), math.inf, 0.0)
    guess_link(record, one(ATTEMPT, measured_s=1.2, sent_bytes=1e6, transmission_joules=2.0))
    assert record.bytes_per_s == pytest.approx(1e6)
    assert record.joules_per_byte == pytest.approx(2e-6)
    guess_link(record, one(ATTEMPT, measured_s=0.5, compute_s=0.6, sent_bytes=1e6))
    assert record.bytes_per_s == pytest.approx(1e6), "nothing was left for the link"
    assert (mean(0.0, 5.0), mean(5.0, 10.0)) == (5.0, 6.0)
    assert transfer_s(1.0, 0.99) == pytest.approx(0.1), "at least a tenth is the bytes'"


# --------------------------------------------------------------------------------------------- reservations


def test_a_slot_is_reserved_until_the_attempt_ends():
    here, options, task = node(), options_for(1), demand(now_s=5.0, waited_s=1.0, serial=7, task=2, attempt=1)
    put(options.estimates[0], {"service_s": 2.0, "up_bytes": 50.0, "arm": 4})
    attempts = rows(ATTEMPT, 2, arrays=False)
    for attempt in attempts:
        start_attempt(attempt, task, options, 5.0)
        reserve(here, attempt)
    assert (here.own, here.backlog_s, here.reserved_bytes_per_s, here.peak) == (2.0, 4.0, 10.0, 2.0)
    assert (attempts[0].expires_at_s, attempts[0].arm, attempts[0].serial) == (20.0, 4, 7)
    release(here, attempts[0])
    assert (here.own, here.backlog_s, here.reserved_bytes_per_s, here.peak) == (1.0, 2.0, 5.0, 2.0)
    here.backlog_s += 1e-9
    release(here, attempts[1])
    assert (here.own, here.backlog_s, here.reserved_bytes_per_s) == (0.0, 0.0, 0.0), "rounding errors end here"
    assert not any(attempt.in_flight for attempt in attempts)


def test_a_node_that_turned_a_task_away_is_full_until_its_heartbeat():
    record = node(own=1.0)
    mark_full(record)
    assert (record.foreign, record.open) == (3.0, 0)
    note_status(record, 1.0, 4.0, 0.0, False)
    assert (record.foreign, record.open) == (0.0, 1)
