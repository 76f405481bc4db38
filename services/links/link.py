"""One emulated link: its settings, its token buckets and its counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from skyshore.domain.node import Link as MeasuredLink
from skyshore.links.capacity import Capacity
from skyshore.links.meter import DirectionMeter
from skyshore.links.settings import Direction, LinkSettings
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of, chunk_bytes


@dataclass(slots=True)
class LinkCounters:
    """Bytes that reached the far end, and open connections."""

    up_bytes: int = 0
    down_bytes: int = 0
    connections: int = 0


class ExperimentClock:
    """Experiment time: seconds since `restart`. More precise than the clock of some event loops, which is in ms."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, in_s: float = 0.0) -> None:
        """Set experiment time to 0 in `in_s` seconds, when the workload starts; it is negative until then."""
        self._zero_s = time.monotonic() + in_s

    def now_s(self) -> float:
        """Experiment time."""
        return time.monotonic() - self._zero_s

    def fixed_s(self, experiment_s: float) -> float:
        """An experiment time, on the monotonic clock, which no restart changes."""
        return experiment_s + self._zero_s

    def fixed_now_s(self) -> float:
        """Now, on the monotonic clock."""
        return time.monotonic()


@dataclass(slots=True)
class Shaping:
    """One direction with its current settings. A change of settings replaces it."""

    direction: Direction
    bucket: Bucket
    chunk_bytes: int
    rtt_s: float
    watchers: set[Callable[[], None]] = field(default_factory=set)
    """Called once when this shaping is replaced."""

    def for_connection(self, rng: np.random.Generator) -> LinkDirection:
        """The shaper of one connection: it has its own delays and shares the token bucket of the link."""
        return LinkDirection(self.bucket, DelayLine(self.direction, self.rtt_s, rng))


class EmulatedLink:
    """Holds the shaping of both directions. Several connections may use one link."""

    def __init__(self, name: str, settings: LinkSettings, up: Shaping, down: Shaping) -> None:
        self.name, self.settings = name, settings
        self.up, self.down = up, down
        self.counters = LinkCounters()
        self.meters = DirectionMeter(), DirectionMeter()
        """Up and down, over all connections."""

    def measured(self) -> MeasuredLink | None:
        """Rates and round-trip time measured on its bytes; None until bytes went in both directions.

        The energy of a byte cannot be measured and is taken from the settings.
        """
        up, down = self.meters
        if not (up.mean_delay_s and down.mean_delay_s):
            return None
        return MeasuredLink(
            up_bytes_per_s=up.bytes_per_s,
            down_bytes_per_s=down.bytes_per_s,
            rtt_s=up.mean_delay_s + down.mean_delay_s,
            joules_per_byte=self.settings.joules_per_byte,
        )

    def change(self, settings: LinkSettings, up: Shaping, down: Shaping) -> None:
        """Bytes that already left keep their arrival time; the others follow the new settings at once."""
        watchers = [*self.up.watchers, *self.down.watchers]
        self.settings, self.up, self.down = settings, up, down
        for watcher in watchers:
            watcher()


def shape(
    settings: LinkSettings,
    traces: Mapping[str, Capacity],
    buckets: tuple[Bucket, Bucket] | None = None,
) -> tuple[Shaping, Shaping]:
    """The shaping of both directions, up first; `buckets` are those that it shares with other links."""
    rtt_s = settings.up.delay_s + settings.down.delay_s
    shapings = []
    for i, direction in enumerate((settings.up, settings.down)):
        trace = traces.get(direction.trace)
        bucket = buckets[i] if buckets else Bucket(capacity_of(direction, trace))
        shapings.append(Shaping(direction, bucket, chunk_bytes(direction, trace), rtt_s))
    return shapings[0], shapings[1]


DirectionOf = Callable[[EmulatedLink], Shaping]
"""Selects the direction of a link that a pump works for."""
