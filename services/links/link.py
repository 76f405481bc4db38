"""One emulated link: its settings now, the buckets behind them, and what has passed."""

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
class Passed:
    """Bytes that reached the far end."""

    up_bytes: int = 0
    down_bytes: int = 0
    connections: int = 0


class ExperimentClock:
    """Experiment time: seconds since `restart`. Not the event loop's clock, which some loops round to milliseconds."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, in_s: float = 0.0) -> None:
        """Begin at 0 so many seconds from now, when the workload starts; until then experiment time is negative."""
        self._zero_s = time.monotonic() + in_s

    def now_s(self) -> float:
        """Experiment time."""
        return time.monotonic() - self._zero_s

    def fixed_s(self, experiment_s: float) -> float:
        """That experiment time on a clock that never starts over."""
        return experiment_s + self._zero_s

    def fixed_now_s(self) -> float:
        """Now on the clock that never starts over."""
        return time.monotonic()


@dataclass(slots=True)
class Shaping:
    """One direction as it is now. A change of settings puts a new one in its place."""

    direction: Direction
    bucket: Bucket
    chunk_bytes: int
    rtt_s: float
    watchers: set[Callable[[], None]] = field(default_factory=set)
    """Called once when this shaping is replaced."""

    def way(self, rng: np.random.Generator) -> LinkDirection:
        """The path of one connection: delays are its own, the bucket is everybody's."""
        return LinkDirection(self.bucket, DelayLine(self.direction, self.rtt_s, rng))


class Link:
    """Holds the shaping of both directions. Several connections may run over one link."""

    def __init__(self, name: str, settings: LinkSettings, up: Shaping, down: Shaping) -> None:
        self.name, self.settings = name, settings
        self.up, self.down = up, down
        self.passed = Passed()
        self.meters = DirectionMeter(), DirectionMeter()
        """Of what goes up and what goes down, over all connections."""

    def measured(self) -> MeasuredLink | None:
        """What its bytes say of it; None before any went both ways. The energy of a byte alone is a setting."""
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
        """Bytes that left already keep their arrival time; all others follow the new settings at once."""
        watchers = [*self.up.watchers, *self.down.watchers]
        self.settings, self.up, self.down = settings, up, down
        for watcher in watchers:
            watcher()


def shape(
    settings: LinkSettings,
    traces: Mapping[str, Capacity],
    buckets: tuple[Bucket, Bucket] | None = None,
) -> tuple[Shaping, Shaping]:
    """Both directions of a link; `buckets` are those it shares with others."""
    rtt_s = settings.up.delay_s + settings.down.delay_s
    made = []
    for i, direction in enumerate((settings.up, settings.down)):
        trace = traces.get(direction.trace)
        bucket = buckets[i] if buckets else Bucket(capacity_of(direction, trace))
        made.append(Shaping(direction, bucket, chunk_bytes(direction, trace), rtt_s))
    return made[0], made[1]


Pick = Callable[[Link], Shaping]
"""Which direction of a link a pump works for."""
