"""One video segment, or one whole clip, on one node: what the attempt loop needs to know of a video task."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from gateway.attempt_log import AttemptLog
from skyshore.domain.errors import Internal, NoFeasibleArm, SkyshoreError
from skyshore.domain.node import Arm
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.links.framing import BOX_BYTES, FRAME_BYTES, REPLY_BYTES, REQUEST_BYTES
from skyshore.ports import WorkerClient

LABEL_BYTES = 12
"""Bytes of a label on the wire besides its text: score and framing."""
LABELS_BYTES = 16
"""Bytes of a classification on the wire besides its labels."""

Profile = Callable[[], Awaitable[TaskProfile]]
Encode = Callable[[Arm], Awaitable[list[EncodedFrame]]]


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A task with what the nodes need to know of its segment."""

    task: Task
    profile: Profile
    """Ask the profiler. May be called again while it is away."""
    info: SegmentInfo
    encode: Encode
    """Make the frames for an arm. May be called again for another arm."""


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The boxes of every frame of a segment, or the labels of a clip, and which node found them."""

    segment_index: int
    placement: Placement
    frame_count: int
    """Frames sent to the node."""
    latency_s: float
    costs: Mapping[str, float | str]
    """See `AttemptLog.costs`."""
    frames: tuple[FrameDetections, ...] = ()
    classification: Classification | None = None

    def entry(self) -> dict[str, Any]:
        """What the result file of the job says about this segment, without boxes and labels."""
        arm = self.placement.arm
        return {
            "index": self.segment_index,
            "node": arm.node_id,
            "tier": self.placement.tier,
            "arm": arm.arm_id,
            "model": arm.model,
            "policy": self.placement.policy,
            "frames": self.frame_count,
            "latency_s": round(self.latency_s, 4),
            **self.costs,
        }


class SegmentRun:
    """Runs one segment; the result is its `SegmentResult`. See `TaskRun`."""

    def __init__(self, segment: SegmentTask, on_encoded: Callable[[], None] = lambda: None) -> None:
        """The deadline counts from now. `on_encoded` is called when the clip's reader may go on to the next segment."""
        self.task, self.arrived_s = segment.task, time.monotonic()
        self._segment, self._on_encoded = segment, on_encoded
        self._encoded_for: Arm | None = None
        self._frames: list[EncodedFrame] = []

    @property
    def subject(self) -> str:
        """The segment's name in messages."""
        return f"segment {self._segment.info.segment_index}"

    async def profile(self) -> TaskProfile:
        """What the profiler finds in the key frame."""
        return await self._segment.profile()

    def placement_error(self, error: NoFeasibleArm) -> SkyshoreError:
        """The scheduler's own error."""
        return error

    async def prepare(self, placement: Placement, log: AttemptLog) -> None:
        """Encode the frames for the placed arm, unless they already are."""
        if self._encoded_for and _encoding(self._encoded_for) == _encoding(placement.arm):
            return
        self._frames, self._encoded_for = await self._segment.encode(placement.arm), placement.arm
        log.up_bytes = REQUEST_BYTES + sum(FRAME_BYTES + len(frame.data) for frame in self._frames)
        self._on_encoded()

    async def execute(self, node: WorkerClient, task: Task, placement: Placement, log: AttemptLog) -> SegmentResult:
        """Send the frames and collect every event. Raises Internal for an incomplete answer."""
        arm = placement.arm
        info = replace(self._segment.info, frame_count=len(self._frames), codec=arm.codec)
        found: list[FrameDetections] = []
        classification: Classification | None = None
        events: Any = node.execute_segment(task, arm.arm_id, info, _each(self._frames))
        async with aclosing(events):
            async for event in events:
                log.down_bytes += _event_bytes(event)
                match event:
                    case WorkerOutcome():
                        log.worker = event
                    case Classification():
                        classification = event
                    case _:
                        found.append(event)
        self._check(arm.node_id, found, classification)
        return SegmentResult(
            info.segment_index,
            placement,
            len(self._frames),
            time.monotonic() - self.arrived_s,
            log.costs(),
            tuple(found),
            classification,
        )

    def set_next(self, next_result: Callable[[SkyshoreError], Awaitable[SegmentResult]]) -> None:
        """Not needed: the result of `execute` is whole."""

    async def aclose(self) -> None:
        """Nothing: `execute` closes its own events."""

    def _check(self, node_id: str, found: Sequence[FrameDetections], classification: Classification | None) -> None:
        is_clip = self.task.kind is TaskKind.VIDEO_CLASSIFY
        expected = [] if is_clip else [frame.frame_index for frame in self._frames]
        if [frame.frame_index for frame in found] != expected:
            raise Internal(f"node '{node_id}' answered {len(found)} of {len(expected)} frames")
        if is_clip and classification is None:
            raise Internal(f"node '{node_id}' ended without the labels of the clip")


def _event_bytes(event: FrameDetections | Classification | WorkerOutcome) -> int:
    match event:
        case WorkerOutcome():
            return REPLY_BYTES
        case Classification():
            return LABELS_BYTES + sum(len(entry.label) + LABEL_BYTES for entry in event.labels)
        case _:
            return BOX_BYTES * len(event.detections)


def _encoding(arm: Arm) -> tuple[object, ...]:
    return arm.codec, arm.input_size, arm.encode_quality, arm.frame_stride


async def _each(frames: Sequence[EncodedFrame]) -> AsyncIterator[EncodedFrame]:
    for frame in frames:
        yield frame
