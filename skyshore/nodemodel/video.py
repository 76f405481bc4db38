"""A node that works off video segments: a queue and `slots` servers, over model time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from skyshore.nodemodel.speed import VideoSpeed


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


class VideoQueue:
    """First come, first served."""

    def __init__(self, speed: VideoSpeed) -> None:
        self.speed = speed
        self.waiting: deque[Segment] = deque()
        self.serving: dict[Segment, None] = {}
        """An ordered set: what is summed over it must not depend on where objects lie in memory."""

    @property
    def full(self) -> bool:
        """Whether one more offer would be refused."""
        return len(self.serving) + len(self.waiting) >= self.speed.slots + self.speed.queue

    def offer(self, segment: Segment) -> bool:
        """Queue a segment. False when all room is taken."""
        if self.full:
            return False
        self.waiting.append(segment)
        return True

    def begin(self, now_s: float) -> list[Segment]:
        """Move segments into free slots; each is over `work_s` later, if its frames are there by then."""
        started: list[Segment] = []
        while self.waiting and len(self.serving) < self.speed.slots:
            segment = self.waiting.popleft()
            segment.started_s = now_s
            self.serving[segment] = None
            started.append(segment)
        return started

    def leave(self, segment: Segment) -> None:
        """Done or cancelled: its slot is free. Nothing happens when it has left already."""
        if segment in self.serving:
            del self.serving[segment]
        elif segment in self.waiting:
            self.waiting.remove(segment)
