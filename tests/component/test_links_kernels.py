"""The kernels of links give the same as machine code and as plain Python, to the bit, and the same as the objects."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from skyshore.links.capacity import Capacity, Constant, Trace
from skyshore.links.delivery import deliver, draw_ahead, make_links
from skyshore.links.meter import DirectionMeter, measured_bytes_per_s
from skyshore.links.settings import Direction, Outage
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of, chunk_bytes
from skyshore.rules.kernel import can_compile, compiled
from skyshore.rules.records import column

LARGEST_BYTES = 400_000


def some_directions(seed: int) -> tuple[list[LinkDirection], list[int | None]]:
    """Half a dozen of all kinds; two share a bucket."""
    rng = random.Random(seed)
    trace = Trace(np.array([0.0, 0.5, 0.75, 2.0, 3.5]), np.array([2e5, 0.0, 1.5e6, 4e4]))
    made, chunks, shared = list[LinkDirection](), list[int | None](), None
    for number in range(6):
        direction = Direction(
            rate_bytes_per_s=rng.choice((3e4, 2e6, float("inf"))),
            delay_s=rng.choice((0.0, 0.02)),
            jitter_s=rng.choice((0.0, 0.004)),
            loss=rng.choice((0.0, 0.03)),
            outages=rng.choice(((), (Outage(1.0, 1.5), Outage(3.0, 3.25)))),
        )
        used: Capacity | None = rng.choice((None, trace))
        bucket = shared if shared is not None and number == 5 else Bucket(capacity_of(direction, used))
        shared = bucket if number == 2 else shared
        made.append(LinkDirection(bucket, DelayLine(direction, 0.04, np.random.default_rng([seed, number]))))
        chunks.append(rng.choice((None, chunk_bytes(direction, used))))
    return made, chunks


def messages(seed: int) -> list[tuple[int, float, float]]:
    rng, now_s, sent = random.Random(seed + 1), 0.0, []
    for _ in range(300):
        now_s += rng.choice((0.0, rng.expovariate(30.0)))
        sent.append((rng.randrange(6), now_s, float(rng.choice((200, 1500, rng.randint(1, LARGEST_BYTES))))))
    return sent


def by_records(seed: int, *, arrays: bool) -> list[Any]:
    directions, chunks = some_directions(seed)
    rngs = [each.line.rng for each in directions]
    links = make_links(directions, chunks, LARGEST_BYTES, arrays=arrays)
    deliver_, measured = (
        (compiled(deliver), compiled(measured_bytes_per_s)) if arrays else (deliver, measured_bytes_per_s)
    )
    got: list[Any] = []
    for message in messages(seed):
        if links.low[0]:
            draw_ahead(links, rngs)
        got.append(deliver_(links, *message))
    got += [measured(direction) for direction in links.directions]
    return got + column(links.directions, "mean_delay_s", 6).tolist()


def by_objects(seed: int) -> list[Any]:
    """As the relay does it, a deviate at a time."""
    directions, chunks = some_directions(seed)
    meters, got = [DirectionMeter() for _ in directions], list[Any]()
    for number, now_s, size_bytes in messages(seed):
        rest, arrived_s, chunk = size_bytes, now_s, chunks[number]
        while rest > 0:
            piece = min(rest, chunk or rest)
            left_s = directions[number].depart(now_s, piece)
            arrived_s = directions[number].arrive(left_s, piece)
            if chunk:
                meters[number].observe(now_s, left_s, arrived_s, piece)
            rest -= piece
        got.append(arrived_s)
    return [*got, *(meter.bytes_per_s for meter in meters), *(meter.mean_delay_s for meter in meters)]


@pytest.mark.parametrize("seed", range(20))
def test_deviates_drawn_ahead_are_those_drawn_one_by_one(seed: int) -> None:
    assert by_records(seed, arrays=False) == by_objects(seed)


@pytest.mark.skipif(not can_compile(), reason="numba is not installed (the extra `compiled`)")
@pytest.mark.parametrize("seed", range(20))
def test_messages_arrive_at_the_same_times_in_both_forms(seed: int) -> None:
    assert by_records(seed, arrays=True) == by_records(seed, arrays=False)


def test_a_message_larger_than_announced_is_refused() -> None:
    direction = Direction(rate_bytes_per_s=1e5, jitter_s=0.001)
    each = LinkDirection(Bucket(Constant(1e5)), DelayLine(direction, 0.0, np.random.default_rng(0)))
    links = make_links([each], [1500], 1500, arrays=False)
    draw_ahead(links, [each.line.rng])
    with pytest.raises(OverflowError, match="give `make_links` its size"):
        deliver(links, 0, 0.0, 1e7)
