"""The meter sees times and sizes only, and finds the settings in them."""

import numpy as np
import pytest

from skyshore.links.capacity import Constant
from skyshore.links.meter import DirectionMeter
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection

CHUNK = 25_000


def send(meter: DirectionMeter, link: LinkDirection, now_s: float, size: int, piece: int = CHUNK) -> float:
    """A message in pieces, as the relay cuts it; returns when all of it has left."""
    left_s = now_s
    for at in range(0, size, piece):
        part = min(piece, size - at)
        left_s = link.depart(now_s, part)
        meter.observe(now_s, left_s, link.arrive(left_s, part), part)
    return left_s


def a_direction(rate: float, delay_s: float, jitter_s: float = 0.0) -> LinkDirection:
    direction = Direction(rate_bytes_per_s=rate, delay_s=delay_s, jitter_s=jitter_s)
    return LinkDirection(Bucket(Constant(rate)), DelayLine(direction, 2 * delay_s, np.random.default_rng(3)))


@pytest.mark.parametrize("rate", [125_000.0, 2.5e6, 12.5e6])
def test_the_rate_of_bulk_is_found_within_one_percent(rate: float) -> None:
    meter, link = DirectionMeter(), a_direction(rate, 0.02)
    for second in range(5):
        send(meter, link, float(second), 8 * CHUNK)
    assert meter.bytes_per_s == pytest.approx(rate, rel=0.01)


def test_small_messages_on_a_fast_link_show_a_delay_and_no_rate() -> None:
    meter, link = DirectionMeter(), a_direction(1e9, 0.03, jitter_s=0.002)
    for turn in range(200):
        send(meter, link, 0.1 * turn, 300)
    assert meter.bytes_per_s == 0.0
    assert meter.mean_delay_s == pytest.approx(0.03, abs=0.002)


def test_a_change_of_rate_is_seen_after_a_few_seconds_of_traffic() -> None:
    meter = DirectionMeter()
    for second in range(10):
        send(meter, a_direction(2e6, 0.01), float(second), 20 * CHUNK)
    slow, now_s = a_direction(2e5, 0.01), 10.0
    for _ in range(5):
        now_s = send(meter, slow, now_s, 20 * CHUNK) + 0.1
    assert meter.bytes_per_s == pytest.approx(2e5, rel=0.1)
