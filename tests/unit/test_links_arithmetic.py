"""Link arithmetic: what a calculator says about rates, delays, traces and outages."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.links.capacity import Capacity, Constant, Interrupted, Trace
from skyshore.links.settings import Direction, Outage, problems
from skyshore.links.shaper import LEAST_BURST_BYTES, Bucket, DelayLine, LinkDirection, capacity_of
from skyshore.links.trace_files import TraceError, parse_mahimahi, parse_rate_table, parse_trace


def direction_of(direction: Direction, rtt_s: float = 0.0, seed: int = 0) -> LinkDirection:
    line = DelayLine(direction, rtt_s, np.random.default_rng(seed))
    return LinkDirection(Bucket(capacity_of(direction, None)), line)


def test_a_message_takes_its_size_over_the_rate_plus_the_delay():
    link = direction_of(Direction(rate_bytes_per_s=1e6, delay_s=0.02))
    assert link.deliver(0.0, 500_000) == pytest.approx(0.52)


def test_messages_queue_behind_each_other_and_idle_time_is_not_saved_up():
    link = direction_of(Direction(rate_bytes_per_s=1e6))
    assert link.deliver(0.0, 1e6) == pytest.approx(1.0)
    assert link.deliver(0.5, 1e6) == pytest.approx(2.0)
    late = link.deliver(100.0, 1e6)
    assert 101.0 - 0.005 - 1e-9 <= late <= 101.0, "98 idle seconds earn 5 ms of burst at most"


def test_two_links_on_one_bucket_get_half_each():
    bucket = Bucket(Constant(1e6))
    lines = [DelayLine(Direction(), 0.0, np.random.default_rng(i)) for i in range(2)]
    directions = [LinkDirection(bucket, line) for line in lines]
    ends, nows = [0.0, 0.0], [0.0, 0.0]
    for _ in range(100):
        for i in (0, 1):
            ends[i] = directions[i].deliver(min(nows), 5000)
        nows = list(ends)
    assert ends[0] == pytest.approx(1.0, abs=0.02)
    assert ends[1] == pytest.approx(1.0, abs=0.02)


def test_an_outage_holds_bytes_back_and_loses_none():
    direction = Direction(rate_bytes_per_s=1e6, delay_s=0.01, outages=(Outage(1.0, 3.0),))
    assert direction_of(direction).deliver(0.5, 1e6) == pytest.approx(3.51, abs=0.006)
    assert direction_of(direction).deliver(1.5, 1e6) == pytest.approx(4.01, abs=0.006)
    assert direction_of(Direction(outages=(Outage(1.0, 3.0),))).deliver(1.5, 1e6) == pytest.approx(3.0, abs=0.001)


def test_jitter_spreads_the_delay_and_never_reorders():
    link = direction_of(Direction(delay_s=0.1, jitter_s=0.01))
    arrivals = [link.deliver(i * 0.2, 100) - i * 0.2 for i in range(2000)]
    assert np.mean(arrivals) == pytest.approx(0.1, abs=0.001)
    assert np.std(arrivals) == pytest.approx(0.01, rel=0.1)
    dense = [link.deliver(1000 + i * 1e-4, 100) for i in range(2000)]
    assert all(b >= a for a, b in pairwise(dense))


def test_loss_costs_round_trips_as_often_as_the_binomial_says():
    link = direction_of(Direction(delay_s=0.02, loss=0.01), rtt_s=0.04)
    waits = np.array([link.deliver(i * 10.0, 15_000) - i * 10.0 for i in range(20_000)])
    rounds = np.round((waits - 0.02) / 0.04)
    assert np.allclose(rounds * 0.04 + 0.02, waits)
    assert np.mean(rounds >= 1) == pytest.approx(1 - 0.99**10, rel=0.08)
    assert np.mean(rounds >= 2) == pytest.approx(1 - (1 - 0.01**2) ** 10, rel=0.8)


def test_mahimahi_lets_one_packet_through_per_line_and_loops():
    trace = parse_mahimahi("1\n1\n4\n")
    assert trace.length_s == pytest.approx(0.004)
    assert trace.bytes_by(0.001) == pytest.approx(3000)
    assert trace.bytes_by(0.003) == pytest.approx(3000)
    assert trace.bytes_by(0.004) == pytest.approx(4500)
    assert trace.bytes_by(1.0) == pytest.approx(250 * 4500)
    assert trace.when(3000 + 750) == pytest.approx(0.0035)
    assert trace.when(4500 + 1) == pytest.approx(0.004, abs=1e-6)


def test_a_rate_table_holds_each_rate_until_the_next_line():
    trace = parse_rate_table("time_s, Mbit/s\n0, 8\n2, 0\n3, 16\n")
    assert trace.mean_bytes_per_s == pytest.approx((2e6 + 0 + 2e6) / 4)
    assert trace.when(2e6) == pytest.approx(2.0)
    assert trace.when(3e6) == pytest.approx(3.5)
    assert trace.bytes_by(2.5) == pytest.approx(2e6)


def test_the_form_of_a_trace_is_recognised():
    assert parse_trace("# a comment\n5\n9\n").length_s == pytest.approx(0.009)
    assert parse_trace("t,Mbit/s\n0,1\n1,2\n").length_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3\n2\n", "line 2: 2 ms comes before 3 ms"),
        ("1\nx\n", "line 2: 'x' is no whole number"),
        ("0\n", "lets nothing through"),
        ("0, 5\n0, 6\n", "line 2: 0 s does not come after 0 s"),
        ("0, 5\n1, -6\n", "line 2: a rate of -6"),
        ("0, 5\n1, fast\n", "line 2: '1, fast' is not"),
        ("0, 0\n1, 0\n", "one rate above 0"),
        ("nothing\n", "no line"),
    ],
)
def test_a_bad_trace_names_the_line(text, said):
    with pytest.raises(TraceError) as raised:
        parse_trace(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        (Direction(rate_bytes_per_s=0), "rate_bytes_per_s must be positive"),
        (Direction(rate_bytes_per_s=math.nan), "rate_bytes_per_s must be positive"),
        (Direction(delay_s=-1), "delay_s must be at least 0"),
        (Direction(loss=1.0), "loss must be in 0..1"),
        (Direction(outages=(Outage(2, 1),)), "no interval"),
        (Direction(outages=(Outage(1, 3), Outage(2, 4))), "overlap"),
    ],
)
def test_settings_that_make_no_sense_are_named(direction, said):
    assert said in problems(direction)[0]
    assert problems(Direction(1e6, 0.1, 0.01, 0.5, (Outage(0, 1), Outage(1, 2)))) == []


capacities = st.one_of(
    st.floats(1e3, 1e8).map(Constant),
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1e6)), min_size=1, max_size=8)
    .filter(lambda pieces: any(rate > 1 for _, rate in pieces))
    .map(lambda p: Trace(np.cumsum([0.0, *(n / 10 for n, _ in p)]), np.array([rate for _, rate in p]))),
)
outage_lists = st.lists(st.floats(0.1, 5), max_size=6).map(
    lambda gaps: tuple(Outage(sum(gaps[: i + 1]), sum(gaps[: i + 2])) for i in range(0, len(gaps) - 1, 2))
)


@given(capacities, outage_lists, st.floats(0, 1e7))
@settings(max_examples=300, deadline=None)
def test_when_is_the_inverse_of_bytes_by(capacity: Capacity, outages, total):
    function = Interrupted(capacity, outages)
    at = function.when(total)
    assert function.bytes_by(at) == pytest.approx(total, rel=1e-6, abs=1e-3)
    assert function.bytes_by(max(0.0, at - 1e-3)) <= total + 1e-3


@given(capacities, outage_lists, st.lists(st.tuples(st.floats(0, 2), st.floats(1, 1e5)), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_bucket_never_carries_more_than_its_capacity_and_a_burst(capacity, outages, messages):
    function = Interrupted(capacity, outages)
    bucket, now, sent, last = Bucket(function), 0.0, 0.0, 0.0
    peak = max(
        [
            0.0,
            *(
                [capacity.rate_bytes_per_s]
                if isinstance(capacity, Constant)
                else [piece.rate_bytes_per_s for piece in capacity.tables.pieces]
            ),
        ]
    )
    for gap, size in messages:
        now += gap
        left = bucket.depart(now, size)
        sent += size
        assert left >= now and left >= last - 1e-6
        assert sent <= function.bytes_by(left) + max(LEAST_BURST_BYTES, peak * 0.005) + 1e-3 + sent * 1e-9
        last = left
