"""The engines of a simulated node: the node model's state machines, driven by the timeline."""

from __future__ import annotations

from collections.abc import Callable

from simulator.timeline import Timeline
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.nodemodel.video import Segment, VideoQueue


class LlmServer:
    """Token level: continuous batching with chunked prefill under a memory limit."""

    def __init__(self, speed: LlmSpeed, timeline: Timeline, done: Callable[[Row], None]) -> None:
        self.busy_watts, self.slots, self.capacity = speed.busy_watts, speed.slots, speed.slots + speed.queue
        self.batch = LlmBatch(speed)
        self._speed = speed
        self._timeline, self._done = timeline, done
        self._plan = 0
        self._slowdown, self._hindrance = 1.0, 1.0
        self.busy = False
        self.on_busy: Callable[[], None] | None = None
        """Called when work begins or rests."""

    @property
    def running(self) -> int:
        """Tasks worked on."""
        return len(self.batch.rows)

    @property
    def queued(self) -> int:
        """Tasks waiting."""
        return len(self.batch.waiting)

    def busy_s(self, now_s: float) -> float:
        """Seconds at full power so far."""
        return self.batch.busy_until(now_s)

    def offer(self, row: Row) -> bool:
        """Take a request now. False when there is no room."""
        if not self.batch.offer(row):
            return False
        if self.batch.running is None:
            self._begin()
        elif self.batch.joins_now():
            self._cut()
        return True

    def drift(self, slowdown: float) -> None:
        """Be so many times slower than at first, from the next iteration on."""
        self._slowdown = slowdown
        self._change_pace()

    def hinder(self, factor: float) -> None:
        """Take so many times as long because of what else runs on the machine, from the next iteration on."""
        if factor != self._hindrance:
            self._hindrance = factor
            self._change_pace()

    def cancel(self, row: Row) -> None:
        """Forget a request; its slot is free at the next iteration's end."""
        self.batch.cancel(row)
        if self.batch.running is not None:
            self._cut()

    def _change_pace(self) -> None:
        self.batch.speed = self._speed.slowed(self._slowdown * self._hindrance)
        if self.batch.running is not None:
            self._cut()

    def _begin(self) -> None:
        run = self.batch.begin(self._timeline.now_s)
        if run is not None:
            self._plan += 1
            self._timeline.at(run.end_s, self._end, self._plan)
        if self.on_busy is not None and self.busy != (run is not None):
            self.busy = run is not None
            self.on_busy()

    def _cut(self) -> None:
        before = self.batch.running
        run = self.batch.shorten(self._timeline.now_s)
        if run is not None and run is not before and (before is None or run.count != before.count):
            self._plan += 1
            self._timeline.at(run.end_s, self._end, self._plan)

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return  # this run was cut short meanwhile
        finished = [row for row, _ in self.batch.end() if row.generated >= row.output_tokens]
        self._begin()
        for row in finished:
            self._done(row)


class VideoServer:
    """Request level: a queue before `slots` equal servers."""

    def __init__(self, speed: VideoSpeed, timeline: Timeline, done: Callable[[Segment], None]) -> None:
        self.busy_watts, self.slots, self.capacity = speed.busy_watts, speed.slots, speed.slots + speed.queue
        self.queue = VideoQueue(speed)
        self._timeline, self._done = timeline, done
        self._worked_s = 0.0

    @property
    def running(self) -> int:
        """Tasks worked on."""
        return len(self.queue.serving)

    @property
    def queued(self) -> int:
        """Tasks waiting."""
        return len(self.queue.waiting)

    def busy_s(self, now_s: float) -> float:
        """Seconds at full power so far; one of several slots at work counts for its share."""
        worked_s = self._worked_s
        for segment in self.queue.serving:
            under_way_s = now_s - segment.started_s
            worked_s += under_way_s if under_way_s < segment.work_s else segment.work_s
        return worked_s / self.slots

    def offer(self, segment: Segment) -> bool:
        """Take a segment now. False when there is no room."""
        if not self.queue.offer(segment):
            return False
        self._begin()
        return True

    def cancel(self, segment: Segment) -> None:
        """Forget a segment; its slot is free at once."""
        if segment in self.queue.serving:
            self._worked_s += min(self._timeline.now_s - segment.started_s, segment.work_s)
        self.queue.leave(segment)
        self._begin()

    def _begin(self) -> None:
        now_s = self._timeline.now_s
        for segment in self.queue.begin(now_s):
            self._timeline.at(max(now_s + segment.work_s, segment.ready_s), self._end, segment)

    def _end(self, segment: Segment) -> None:
        if segment not in self.queue.serving:
            return  # cancelled
        self._worked_s += segment.work_s
        self.queue.leave(segment)
        self._begin()
        self._done(segment)
