"""A vision engine without a model: boxes from the frame number, labels from the task, at the pace of a node profile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar
from zlib import crc32

from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, QueueFull
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import Classification, Detection, EncodedFrame, FrameDetections, LabelScore, SegmentInfo
from skyshore.engines.emulated.pace import Pace
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.nodemodel.video import Segment, VideoQueue
from skyshore.workload.synthetic.actions import ACTIONS

T = TypeVar("T")

MOST_BOXES = 5
AT_HAND_S = 0.0005
"""A frame fetched faster than this was waiting; its work starts when the frame before is done."""


class EmulatedVideoEngine:
    """Serves one detector or one clip classifier of a profile. Needs a running event loop to be made."""

    def __init__(
        self, speed: VideoSpeed, *, frame_s: Mapping[str, float] | None = None, time_scale: float = 1.0
    ) -> None:
        """`frame_s` gives arms their own time per frame; slots, queue and power are the model's, as in `speed`."""
        self.model = speed.model
        self._speed, self._pace, self._frame_s = speed, Pace(time_scale), dict(frame_s or {})
        self._queue = VideoQueue(speed)
        self._starts: dict[Segment, asyncio.Event] = {}
        self._busy_s = 0.0
        self._slowdown = 1.0

    async def detect(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[FrameDetections | WorkerOutcome]:
        """See `VideoEngine`. Durations in the outcome are real seconds."""
        async with aclosing(self._worked_off(task, info, frames)) as events:
            async for event in events:
                if isinstance(event, EncodedFrame):
                    yield FrameDetections(event.frame_index, event.timestamp_s, _drawn(info, event.frame_index))
                else:
                    yield event

    async def classify(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[Classification | WorkerOutcome]:
        """See `ClipClassifierEngine`; durations as in `detect`."""
        async with aclosing(self._worked_off(task, info, frames)) as events:
            async for event in events:
                if isinstance(event, EncodedFrame):
                    continue
                if not event.frames:
                    raise InvalidMedia("a clip without frames shows nothing")
                yield _named(task.task_id)
                yield event

    async def _worked_off(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncGenerator[EncodedFrame | WorkerOutcome]:
        """Each frame when its time is over, then the outcome."""
        deadline = _Deadline(task.deadline_s)
        speed = replace(self._speed, frame_s=self._frame_s.get(info.arm_id, self._speed.frame_s)).slowed(self._slowdown)
        segment = Segment(task.task_id, speed.service_s(info.frame_count), self._pace.now_s())
        if not self._queue.offer(segment):
            raise QueueFull(f"{self.model} has no room for another segment; try later", retry_after_s=1.0)
        self._starts[segment] = asyncio.Event()
        try:
            self._begin_next()
            await deadline.bound(self._starts[segment].wait())
            free_s, count = segment.started_s + speed.segment_s, 0
            self._busy_s += speed.segment_s
            while True:
                asked_s = self._pace.now_s()
                frame = await deadline.bound(anext(frames, None))
                if frame is None:
                    break
                if not frame.data:
                    raise InvalidMedia(f"frame {frame.frame_index} is empty")
                free_s = await deadline.bound(self._work(speed.frame_s, asked_s, free_s))
                count += 1
                yield frame
            yield self._outcome(segment, speed.service_s(count), count)
        finally:
            del self._starts[segment]
            self._queue.leave(segment)
            self._begin_next()

    def load(self) -> EngineLoad:
        """See `VideoEngine`."""
        running, queued = len(self._queue.serving), len(self._queue.waiting)
        return EngineLoad(running=running, queued=queued, capacity=self._speed.slots + self._speed.queue)

    def busy_joules(self) -> float:
        """Joules above idle so far, in model time."""
        return self._speed.busy_watts * self._busy_s / self._speed.slots

    def drift(self, slowdown: float) -> None:
        """New segments take `factor` times as long; the arm's stated speed does not change."""
        self._slowdown = slowdown

    async def close(self) -> None:
        """See `VideoEngine`; there is nothing to free."""

    async def _work(self, frame_s: float, asked_s: float, free_s: float) -> float:
        """One frame; returns when, in model time, the slot is free again."""
        now_s = self._pace.now_s()
        begin_s = free_s if now_s - asked_s < AT_HAND_S * self._pace.scale else max(free_s, now_s)
        end_s = begin_s + frame_s
        await self._pace.until(end_s)
        self._busy_s += frame_s
        return end_s

    def _begin_next(self) -> None:
        for segment in self._queue.begin(self._pace.now_s()):
            self._starts[segment].set()

    def _outcome(self, segment: Segment, work_s: float, frames: int) -> WorkerOutcome:
        scale = self._pace.scale
        return WorkerOutcome(
            queue_s=max(0.0, segment.started_s - segment.arrived_s) / scale,
            compute_s=work_s / scale,
            frames=frames,
        )


class _Deadline:
    """Bounds single waits: an `asyncio.timeout` must not stay open across a yield."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end_s = asyncio.get_running_loop().time() + seconds

    async def bound(self, waited: Awaitable[T]) -> T:
        """Await it, but not beyond the deadline. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout_at(self._end_s):
                return await waited
        except TimeoutError:
            raise DeadlineExceeded(f"the segment was not done after {self._seconds:g} s") from None


def _drawn(info: SegmentInfo, frame_index: int) -> tuple[Detection, ...]:
    """Up to MOST_BOXES boxes that depend on the frame number alone."""
    labels = info.classes or ("person", "car")
    draw = crc32(frame_index.to_bytes(8, "little"))
    boxes = []
    for i in range(draw % (MOST_BOXES + 1)):
        x, y = (draw >> i) % 80 / 100 * info.source_width, (draw >> (i + 7)) % 80 / 100 * info.source_height
        score = info.min_score + (1 - info.min_score) * ((draw >> (i + 3)) % 100) / 100
        label = labels[(draw + i) % len(labels)]
        boxes.append(Detection(label, score, x, y, x + info.source_width / 5, y + info.source_height / 5))
    return tuple(boxes)


def _named(task_id: str) -> Classification:
    """Labels in an order that depends on the task alone, each half as likely as the one before."""
    first = crc32(task_id.encode()) % len(ACTIONS)
    shares = [2.0**-rank for rank in range(len(ACTIONS))]
    labels = ACTIONS[first:] + ACTIONS[:first]
    return Classification(
        tuple(LabelScore(label, share / sum(shares)) for label, share in zip(labels, shares, strict=True))
    )
