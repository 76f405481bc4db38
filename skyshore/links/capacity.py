"""How many bytes a link could have carried by a time, and the reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyshore.links.records import OUTAGE, PIECE, CapacityTables
from skyshore.links.settings import Outage
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record, Records, rows


@kernel
def bytes_by(capacity: Record, tables: CapacityTables, time_s: float) -> float:
    """Bytes that a CAPACITY could have carried from time 0 until then; never decreases."""
    if not capacity.outages:
        return _carried_by(capacity, tables, time_s)
    carried = total = _carried_by(capacity, tables, time_s)
    for index in range(capacity.first_outage, capacity.first_outage + capacity.outages):
        outage = tables.outages[index]
        if time_s <= outage.start_s:
            break
        total -= (outage.end_bytes if time_s >= outage.end_s else carried) - outage.start_bytes
    return total


@kernel
def when(capacity: Record, tables: CapacityTables, total_bytes: float) -> float:
    """Earliest time with `bytes_by(time) >= total_bytes`."""
    if not capacity.outages:
        return _carried_when(capacity, tables, total_bytes)
    lost = 0.0
    for index in range(capacity.first_outage, capacity.first_outage + capacity.outages):
        outage = tables.outages[index]
        if total_bytes + lost <= outage.start_bytes:
            break
        lost += outage.end_bytes - outage.start_bytes
    return _carried_when(capacity, tables, total_bytes + lost)


@kernel
def _carried_by(capacity: Record, tables: CapacityTables, time_s: float) -> float:
    """`bytes_by` without outages."""
    if not capacity.pieces:
        constant: float = capacity.rate_bytes_per_s * time_s
        return constant
    rounds, rest_s = divmod(time_s, capacity.length_s)
    pieces, low, high = tables.pieces, capacity.first_piece, capacity.first_piece + capacity.pieces
    while high - low > 1:
        middle = (low + high) // 2
        if pieces[middle].start_s <= rest_s:
            low = middle
        else:
            high = middle
    piece = pieces[low]
    in_piece = (rest_s - piece.start_s) * piece.rate_bytes_per_s
    return float(rounds * capacity.total_bytes + piece.start_bytes + in_piece)


@kernel
def _carried_when(capacity: Record, tables: CapacityTables, total_bytes: float) -> float:
    """`when` without outages."""
    if not capacity.pieces:
        constant: float = total_bytes / capacity.rate_bytes_per_s
        return constant
    rounds, rest = divmod(total_bytes, capacity.total_bytes)
    if rest == 0.0 and rounds > 0:
        rounds, rest = rounds - 1, capacity.total_bytes
    # The first piece that starts with at least as many bytes ends the one in which they are reached.
    pieces, low, high = tables.pieces, capacity.first_piece, capacity.first_piece + capacity.pieces
    while low < high:
        middle = (low + high) // 2
        if pieces[middle].start_bytes >= rest:
            high = middle
        else:
            low = middle + 1
    if low == capacity.first_piece:
        return float(rounds * capacity.length_s)
    piece = pieces[low - 1]
    in_piece_s = (rest - piece.start_bytes) / piece.rate_bytes_per_s
    return float(rounds * capacity.length_s + piece.start_s + in_piece_s)


class Capacity:
    """A CAPACITY record with the tables it points into. Make a `Constant`, `Trace` or `Interrupted`."""

    def __init__(self, rate_bytes_per_s: float, pieces: Records, outages: Records) -> None:
        self.rate_bytes_per_s = rate_bytes_per_s
        self.tables = CapacityTables(pieces, outages)
        self.first_piece = self.first_outage = 0
        self.pieces, self.outages = max(0, len(pieces) - 1), len(outages)
        self.length_s: float = pieces[-1].start_s if pieces else 0.0
        self.total_bytes: float = pieces[-1].start_bytes if pieces else 0.0
        self.unlimited = int(math.isinf(rate_bytes_per_s) and not outages)

    def bytes_by(self, time_s: float) -> float:
        """Bytes the link could have carried from time 0 until then."""
        return bytes_by(self, self.tables, time_s)

    def when(self, total_bytes: float) -> float:
        """Earliest time with `bytes_by(time) >= total_bytes`."""
        return when(self, self.tables, total_bytes)


class Constant(Capacity):
    """A constant rate."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        super().__init__(rate_bytes_per_s, [], [])


class Trace(Capacity):
    """Piecewise constant rates that start over at the end of the recording.

    Args:
        edges_s: [n + 1] times, rising from 0; the last one is the length of the recording.
        rates_bytes_per_s: [n] rates between them, not all 0.
    """

    def __init__(self, edges_s: NDArray[np.floating], rates_bytes_per_s: NDArray[np.floating]) -> None:
        sums = np.cumsum(rates_bytes_per_s * np.diff(edges_s)).tolist()
        pieces = rows(PIECE, len(edges_s), arrays=False)
        values = zip(pieces, edges_s.tolist(), [0.0, *sums], [*rates_bytes_per_s.tolist(), 0.0], strict=True)
        for piece, start_s, start_bytes, rate in values:
            piece.start_s, piece.start_bytes, piece.rate_bytes_per_s = start_s, start_bytes, rate
        super().__init__(0.0, pieces, [])

    @property
    def mean_bytes_per_s(self) -> float:
        """Mean over the recording."""
        return float(self.total_bytes / self.length_s)


class Interrupted(Capacity):
    """A capacity (which has no outages itself) with outages: the bytes of these times are lost."""

    def __init__(self, capacity: Capacity, outages: Sequence[Outage]) -> None:
        records = rows(OUTAGE, len(outages), arrays=False)
        for record, outage in zip(records, sorted(outages, key=lambda outage: outage.start_s), strict=True):
            record.start_s, record.end_s = outage.start_s, outage.end_s
            record.start_bytes, record.end_bytes = capacity.bytes_by(outage.start_s), capacity.bytes_by(outage.end_s)
        super().__init__(capacity.rate_bytes_per_s, capacity.tables.pieces, records)
