"""A video engine as an object: a queue and `slots` servers, in virtual time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from skyshore.nodemodel.engine import begin_segment, fill_engine, is_full, offer
from skyshore.nodemodel.lines import members, remove
from skyshore.nodemodel.records import ENGINE
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.rules.records import NONE, rows


@dataclass(slots=True, eq=False)
class Segment:
    """One segment in service or waiting for it."""

    key: str
    work_s: float
    """Seconds of one slot it takes; see `VideoSpeed.service_s`."""
    arrived_s: float
    started_s: float = 0.0
    ready_s: float = 0.0
    """It cannot be done before: its last frame is still on the way until then."""
    number: int = NONE


class VideoQueue:
    """First come, first served."""

    def __init__(self, speed: VideoSpeed) -> None:
        self._engine = rows(ENGINE, 1, arrays=False)[0]
        fill_engine(self._engine, speed)
        self._segments: dict[int, Segment] = {}
        self._after: dict[int, int] = {}
        self._numbers = itertools.count()

    @property
    def serving(self) -> list[Segment]:
        """In service, in order."""
        return [self._segments[number] for number in members(self._engine.working, self._after)]

    @property
    def waiting(self) -> list[Segment]:
        """Not yet in service, in order."""
        return [self._segments[number] for number in members(self._engine.waiting, self._after)]

    def offer(self, segment: Segment) -> bool:
        """Queue a segment. False when all room is taken."""
        if is_full(self._engine):
            return False
        segment.number = next(self._numbers)
        self._segments[segment.number] = segment
        return offer(self._engine, self._segments, self._after, segment.number)

    def begin(self, now_s: float) -> list[Segment]:
        """Move segments into free slots; each is over `work_s` later, if its frames are there by then."""
        started: list[Segment] = []
        while (number := begin_segment(self._engine, self._segments, self._after, now_s)) != NONE:
            started.append(self._segments[number])
        return started

    def leave(self, segment: Segment) -> None:
        """Done or cancelled: its slot is free. Nothing happens when it has left already."""
        if self._segments.pop(segment.number, None) is not None:
            if not remove(self._engine.working, self._after, segment.number):
                remove(self._engine.waiting, self._after, segment.number)
            del self._after[segment.number]
