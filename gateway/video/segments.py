"""Place, encode, execute: the way of one video segment or one whole clip, on another node when one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from gateway.attempt_log import JoulesPerByte, Ledger, status_of
from gateway.records import RecordWriter
from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, QueueFull, SkyshoreError
from skyshore.domain.node import Arm
from skyshore.domain.outcome import OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.links.framing import BOX_BYTES, FRAME_BYTES, REPLY_BYTES, REQUEST_BYTES
from skyshore.ports import SchedulerClient, WorkerClient
from skyshore.runtime import telemetry

RETRIED = (NodeUnavailable, QueueFull, Internal)
"""Failures of one node, or of a fleet that may recover: an accepted clip is worth waiting for until its deadline."""
MAX_ATTEMPTS = 6
"""Executions of one segment; one that fails this often fails everywhere."""
WAIT_S = 0.5

Encode = Callable[[Arm], Awaitable[list[EncodedFrame]]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A task with what its nodes need to know."""

    task: Task
    profile: TaskProfile
    info: SegmentInfo
    encode: Encode
    """Makes the frames for an arm; may be called again for another arm."""


@dataclass(frozen=True, slots=True)
class Found:
    """A node's answer."""

    frame_count: int
    """Frames it was sent."""
    frames: tuple[FrameDetections, ...] = ()
    verdict: Classification | None = None


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """Every frame of a segment, or the verdict on a clip, and where it was looked at."""

    segment_index: int
    placement: Placement
    found: Found
    latency_s: float
    costs: Mapping[str, float | str]
    """See `Ledger.costs`."""

    def entry(self) -> dict[str, Any]:
        """What a task's result says of it, boxes and labels excepted."""
        arm = self.placement.arm
        return {
            "index": self.segment_index,
            "node": arm.node_id,
            "tier": self.placement.tier,
            "arm": arm.arm_id,
            "model": arm.model,
            "policy": self.placement.policy,
            "frames": self.found.frame_count,
            "latency_s": round(self.latency_s, 4),
            **self.costs,
        }


class SegmentDispatcher:
    """Finds nodes for segments and sees them through."""

    def __init__(
        self,
        scheduler: SchedulerClient,
        workers: Callable[[str], WorkerClient],
        records: RecordWriter,
        price: JoulesPerByte,
    ) -> None:
        """`workers` gives the client for a node's address."""
        self._scheduler, self._workers, self._records, self._price = scheduler, workers, records, price

    async def run(self, segment: Segment, on_encoded: Callable[[], None]) -> SegmentResult:
        """Place, encode, execute; `on_encoded` is called once the clip's reader may go on to the next segment.

        Raises:
            SkyshoreError: whatever ended the segment; DeadlineExceeded when no node managed it in time.
        """
        ledger = Ledger(self._records, segment.task, time.monotonic(), self._price)
        status, message = OutcomeStatus.CANCELLED, "the job was stopped"
        try:
            with telemetry.IN_FLIGHT.labels(segment.task.kind.value).track_inprogress():
                async with asyncio.timeout(segment.task.deadline_s) as limit:
                    result = await self._until_done(segment, ledger, on_encoded)
            status, message = OutcomeStatus.OK, ""
            return result
        except TimeoutError:
            if not limit.expired():
                raise
            index = segment.info.segment_index
            error = DeadlineExceeded(f"segment {index} was not done within {segment.task.deadline_s:g} s")
            status, message = OutcomeStatus.DEADLINE_EXCEEDED, error.message
            raise error from None
        except SkyshoreError as error:
            status, message = status_of(error), error.message
            raise
        finally:
            ledger.close(status, message)

    async def _until_done(self, segment: Segment, ledger: Ledger, on_encoded: Callable[[], None]) -> SegmentResult:
        began_s = time.monotonic()
        frames: list[EncodedFrame] = []
        encoded_for: Arm | None = None
        avoid: list[str] = []
        attempt = 0
        while True:
            attempt += 1
            placement = await self._place(segment, attempt, avoid)
            ledger.begin(placement)
            if encoded_for is None or _encoding(encoded_for) != _encoding(placement.arm):
                frames, encoded_for = await segment.encode(placement.arm), placement.arm
                ledger.up_bytes = REQUEST_BYTES + sum(FRAME_BYTES + len(frame.data) for frame in frames)
                on_encoded()
            used_s = time.monotonic() - began_s
            task = replace(segment.task, deadline_s=max(0.001, segment.task.deadline_s - used_s))
            try:
                found = await self._execute(task, placement, segment.info, frames, ledger)
            except RETRIED as error:
                if attempt >= MAX_ATTEMPTS:
                    raise
                ledger.attempt_failed(error)
                avoid.append(placement.arm.node_id)
            else:
                latency_s = time.monotonic() - began_s
                return SegmentResult(segment.info.segment_index, placement, found, latency_s, ledger.costs())

    async def _place(self, segment: Segment, attempt: int, avoid: list[str]) -> Placement:
        """Wait for a node with room; one that failed is welcome again when no other is left."""
        while True:
            try:
                return await self._scheduler.place(segment.task, segment.profile, attempt=attempt, avoid=avoid)
            except (NodeUnavailable, QueueFull) as error:
                avoid.clear()
                await asyncio.sleep(min(error.retry_after_s or WAIT_S, WAIT_S))

    async def _execute(
        self,
        task: Task,
        placement: Placement,
        info: SegmentInfo,
        frames: Sequence[EncodedFrame],
        ledger: Ledger,
    ) -> Found:
        info = replace(info, frame_count=len(frames), codec=placement.arm.codec)
        found: list[FrameDetections] = []
        verdict: Classification | None = None
        worker = self._workers(placement.address)
        events: Any = worker.execute_segment(task, placement.arm.arm_id, info, _each(frames))
        async with aclosing(events):
            async for event in events:
                match event:
                    case WorkerOutcome():
                        ledger.worker = event
                        ledger.down_bytes += REPLY_BYTES
                    case Classification():
                        verdict = event
                        ledger.down_bytes += 16 + sum(len(label) + 12 for label in event.labels)
                    case _:
                        found.append(event)
                        ledger.down_bytes += BOX_BYTES * len(event.detections)
        expected = [] if task.kind is TaskKind.VIDEO_CLASSIFY else [frame.frame_index for frame in frames]
        if [frame.frame_index for frame in found] != expected:
            raise Internal(f"node '{placement.arm.node_id}' answered {len(found)} of {len(expected)} frames")
        if task.kind is TaskKind.VIDEO_CLASSIFY and verdict is None:
            raise Internal(f"node '{placement.arm.node_id}' ended without a verdict on the clip")
        return Found(len(frames), tuple(found), verdict)


def _encoding(arm: Arm) -> tuple[object, ...]:
    return arm.codec, arm.input_size, arm.encode_quality, arm.frame_stride


async def _each(frames: Sequence[EncodedFrame]) -> AsyncIterator[EncodedFrame]:
    for frame in frames:
        yield frame
