"""The links of a simulation as records: when a message arrives, with random deviates drawn ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from skyshore.links.capacity import Capacity
from skyshore.links.meter import observe
from skyshore.links.records import BUCKET, CAPACITY, DIRECTION, OUTAGE, PIECE, CapacityTables, Links
from skyshore.links.shaper import LinkDirection, arrive, depart
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record, Records, integers, rows

ROOM = 2048
"""Deviates drawn ahead for a direction, at least."""


@kernel
def deliver(links: Links, number: int, now_s: float, size_bytes: float) -> float:
    """When a message handed over at `now_s` is readable at the far end of a direction.

    Raises:
        OverflowError: it needs more deviates than are drawn ahead.
    """
    direction = links.directions[number]
    bucket, capacity = links.buckets[direction.bucket], links.capacities[direction.bucket]
    if not direction.metered:
        return _arrive(links, direction, depart(bucket, capacity, links.tables, now_s, size_bytes), size_bytes)
    rest, arrived_s, chunk_bytes = size_bytes, now_s, direction.chunk_bytes
    while rest > 0:
        piece = min(rest, chunk_bytes)
        left_s = depart(bucket, capacity, links.tables, now_s, piece)
        arrived_s = _arrive(links, direction, left_s, piece)
        observe(direction, now_s, left_s, arrived_s, piece)
        rest -= piece
    return arrived_s


@kernel
def _arrive(links: Links, direction: Record, departed_s: float, size_bytes: float) -> float:
    normal = _draw(links, direction) if direction.jitter_s else 0.0
    uniform = _draw(links, direction) if direction.loss else 0.0
    return arrive(direction, departed_s, size_bytes, normal, uniform)


@kernel
def _draw(links: Links, direction: Record) -> float:
    """The next deviate drawn ahead for a direction."""
    row, place = links.draws[direction.draw_row], direction.drawn
    if place >= len(row):
        raise OverflowError("one message took more deviates than are drawn ahead; give `make_links` its size")
    direction.drawn = place + 1
    if 2 * direction.drawn > len(row):
        links.low[0] = 1
    return float(row[place])


def make_links(
    directions: Sequence[LinkDirection], chunk_bytes: Sequence[int | None], largest_bytes: float, *, arrays: bool
) -> Links:
    """Records of directions that nothing has passed yet, in the same order; call `draw_ahead` before the first message.

    Args:
        directions: Those with the same `Bucket` share it.
        chunk_bytes: Pieces in which each is measured; None for one that is not.
        largest_bytes: Most that is handed to one direction between two calls of `draw_ahead`.
        arrays: Whether for machine code.
    """
    buckets = list({id(each.bucket): each.bucket for each in directions}.values())
    numbers = {id(bucket): number for number, bucket in enumerate(buckets)}
    capacities, tables = _capacities([bucket.capacity for bucket in buckets])
    records = rows(DIRECTION, len(directions), arrays=False)
    drawing, most_draws = 0, 0
    for record, each, chunk in zip(records, directions, chunk_bytes, strict=True):
        _copy(each.line, record, ("delay_s", "jitter_s", "loss", "retransmit_s", "last_s"))
        record.last_left_s = record.counted_s = -math.inf
        record.bucket, record.metered, record.chunk_bytes = numbers[id(each.bucket)], int(chunk is not None), chunk or 0
        if per_piece := _draws_per_piece(record):
            record.draw_row, drawing = drawing, drawing + 1
            most_draws = max(most_draws, per_piece * (math.ceil(largest_bytes / chunk) + 1 if chunk else 1))
    room = max(ROOM, 2 * most_draws)
    for record in records:
        record.drawn = room if _draws_per_piece(record) else 0
    return Links(
        _in_form(records, DIRECTION, arrays=arrays),
        rows(BUCKET, len(buckets), arrays=arrays),
        _in_form(capacities, CAPACITY, arrays=arrays),
        CapacityTables(_in_form(tables.pieces, PIECE, arrays=arrays), _in_form(tables.outages, OUTAGE, arrays=arrays)),
        np.zeros((drawing, room)) if arrays else [[0.0] * room for _ in range(drawing)],
        integers(1, arrays=arrays, fill=1),
    )


def draw_ahead(links: Links, rngs: Sequence[np.random.Generator]) -> None:
    """Draw again what was used of the deviates, in each direction's own order; at first, all. One generator each."""
    links.low[0] = 0
    directions = links.directions
    if isinstance(directions, np.ndarray):
        directions = directions.view(np.recarray)
    for direction, rng in zip(directions, rngs, strict=True):
        used = int(direction.drawn)
        if used:
            row = links.draws[direction.draw_row]
            row[:] = [*row[used:], *_deviates(direction, rng, used)]
            direction.drawn = 0


def _deviates(direction: Record, rng: np.random.Generator, count: int) -> list[float]:
    """As `DelayLine` would draw them piece by piece."""
    if not direction.loss:
        normal: list[float] = rng.standard_normal(count).tolist()
        return normal
    if not direction.jitter_s:
        uniform: list[float] = rng.random(count).tolist()
        return uniform
    return [draw() for _ in range(count // 2) for draw in (rng.standard_normal, rng.random)]


def _draws_per_piece(direction: Record) -> int:
    return int(direction.jitter_s > 0) + int(direction.loss > 0)


def _capacities(capacities: Sequence[Capacity]) -> tuple[Records, CapacityTables]:
    """CAPACITY of each, and their traces and outages in shared tables; a trace is kept once."""
    records, tables = rows(CAPACITY, len(capacities), arrays=False), CapacityTables([], [])
    first_piece: dict[int, int] = {}
    for record, capacity in zip(records, capacities, strict=True):
        _copy(capacity, record, CAPACITY.names or ())
        pieces, outages = capacity.tables
        if id(pieces) not in first_piece:
            first_piece[id(pieces)] = len(tables.pieces)
            tables.pieces.extend(pieces)
        record.first_piece, record.first_outage = first_piece[id(pieces)], len(tables.outages)
        tables.outages.extend(outages)
    return records, tables


def _copy(source: object, record: Record, names: Sequence[str]) -> None:
    for name in names:
        setattr(record, name, getattr(source, name))


def _in_form(records: Records, dtype: np.dtype[np.void], *, arrays: bool) -> Records:
    """Plain records as they are, or as an array; unlike `in_form` it also knows the type of no records."""
    if not arrays:
        return records
    array = np.zeros(len(records), dtype=dtype)
    for index, record in enumerate(records):
        array[index] = tuple(getattr(record, name) for name in dtype.names or ())
    return array
