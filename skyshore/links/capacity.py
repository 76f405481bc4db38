"""How many bytes a link could have carried by a time, and the reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skyshore.links.settings import Outage


class Capacity(Protocol):
    """A non-decreasing function of experiment time."""

    def bytes_by(self, time_s: float) -> float:
        """Bytes the link could have carried from time 0 until then."""
        ...

    def when(self, total_bytes: float) -> float:
        """Earliest time with `bytes_by(time) >= total_bytes`; inf if it never comes."""
        ...


class Constant:
    """The same rate for ever."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        self.rate_bytes_per_s = rate_bytes_per_s

    def bytes_by(self, time_s: float) -> float:
        """See `Capacity`."""
        return self.rate_bytes_per_s * time_s

    def when(self, total_bytes: float) -> float:
        """See `Capacity`."""
        return total_bytes / self.rate_bytes_per_s


class Trace:
    """Piecewise constant rates that start over at the end of the recording.

    Args:
        edges_s: [n + 1] times, rising from 0; the last one is the length of the recording.
        rates_bytes_per_s: [n] rates between them, not all 0.
    """

    def __init__(self, edges_s: NDArray[np.floating], rates_bytes_per_s: NDArray[np.floating]) -> None:
        self._edges = edges_s
        self._rates = rates_bytes_per_s
        self._sums = np.concatenate(([0.0], np.cumsum(rates_bytes_per_s * np.diff(edges_s))))
        self._length_s, self._total = float(edges_s[-1]), float(self._sums[-1])

    @property
    def length_s(self) -> float:
        """Seconds recorded."""
        return self._length_s

    @property
    def mean_bytes_per_s(self) -> float:
        """Mean over the recording."""
        return self._total / self._length_s

    def bytes_by(self, time_s: float) -> float:
        """See `Capacity`."""
        rounds, rest_s = divmod(time_s, self._length_s)
        i = int(np.searchsorted(self._edges, rest_s, side="right")) - 1
        i = min(i, len(self._rates) - 1)
        return float(rounds * self._total + self._sums[i] + (rest_s - self._edges[i]) * self._rates[i])

    def when(self, total_bytes: float) -> float:
        """See `Capacity`."""
        rounds, rest = divmod(total_bytes, self._total)
        if rest == 0.0 and rounds > 0:
            rounds, rest = rounds - 1, self._total
        # The first edge that reaches it ends the piece in which it is reached; that piece has a rate.
        i = int(np.searchsorted(self._sums, rest, side="left"))
        if i == 0:
            return float(rounds * self._length_s)
        return float(rounds * self._length_s + self._edges[i - 1] + (rest - self._sums[i - 1]) / self._rates[i - 1])


class Interrupted:
    """Another capacity with outages: what it would have carried meanwhile is lost."""

    def __init__(self, capacity: Capacity, outages: Sequence[Outage]) -> None:
        self._capacity = capacity
        self._outages = [
            (outage.start_s, outage.end_s, capacity.bytes_by(outage.start_s), capacity.bytes_by(outage.end_s))
            for outage in sorted(outages, key=lambda outage: outage.start_s)
        ]

    def bytes_by(self, time_s: float) -> float:
        """See `Capacity`."""
        total = self._capacity.bytes_by(time_s)
        for start_s, end_s, at_start, at_end in self._outages:
            if time_s <= start_s:
                break
            total -= (at_end if time_s >= end_s else self._capacity.bytes_by(time_s)) - at_start
        return total

    def when(self, total_bytes: float) -> float:
        """See `Capacity`."""
        lost = 0.0
        for _, _, at_start, at_end in self._outages:
            if total_bytes + lost <= at_start:
                break
            lost += at_end - at_start
        return self._capacity.when(total_bytes + lost)


def unlimited(capacity: Capacity) -> bool:
    """Whether sending takes no time."""
    return isinstance(capacity, Constant) and math.isinf(capacity.rate_bytes_per_s)
