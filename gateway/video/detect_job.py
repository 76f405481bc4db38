"""Finds objects in one clip: cuts it into segments, places them one by one, merges the boxes in frame order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.attempts import AttemptLoop
from gateway.video.schema import VideoJob
from gateway.video.segment_run import SegmentResult, SegmentRun, SegmentTask
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.ports import ProfilerClient
from skyshore.runtime.disk import disk_errors, write_atomically
from skyshore.runtime.endure import until_done

if TYPE_CHECKING:
    from gateway.video.clip_work import ClipCutter, KeyFrame


RESULT_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How much of a clip is done."""

    share: float
    """0..1."""
    node_ids: tuple[str, ...]


class DetectionJobs:
    """Turns detection jobs into result files."""

    def __init__(
        self,
        profiler: ProfilerClient,
        attempts: AttemptLoop,
        results: Path,
        *,
        segment_s: float,
        in_flight: int,
        origin: str,
    ) -> None:
        """Set the limits.

        Args:
            profiler: looks at the first frame of each segment.
            attempts: runs the segments on nodes.
            results: folder of the result files.
            segment_s: seconds of video in one segment.
            in_flight: segments of one clip that run at the same time.
            origin: site of this gateway.
        """
        self._profiler, self._attempts, self._results = profiler, attempts, results
        self._segment_s, self._in_flight, self._origin = segment_s, in_flight, origin

    async def run(self, job: VideoJob, report: Callable[[JobProgress], Awaitable[None]]) -> Path:
        """Find the objects of a clip and return the file of its boxes. `report` is called after every segment.

        Raises:
            SkyshoreError: the first failure of a segment; the others are cancelled.
        """
        # OpenCV and PyAV take 100 MB and half a second: a gateway that serves text only never loads them.
        from gateway.video import clip_work  # noqa: PLC0415

        cutter = await asyncio.to_thread(
            clip_work.ClipCutter, Path(job.path), job.facts, self._segment_s, job.frame_stride
        )
        began_s = time.monotonic()
        done: list[SegmentResult] = []
        try:
            async with asyncio.TaskGroup() as group:
                await self._cut(job, cutter, group, done, report)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        result = _merged(job, done, time.monotonic() - began_s)
        target = self._results / f"{job.task_id}.json"
        await write_result(target, orjson.dumps(result))
        return target

    async def _cut(
        self,
        job: VideoJob,
        cutter: ClipCutter,
        group: asyncio.TaskGroup,
        done: list[SegmentResult],
        report: Callable[[JobProgress], Awaitable[None]],
    ) -> None:
        """Start the segments in order, as fast as the nodes finish them."""
        slots = asyncio.Semaphore(self._in_flight)

        async def run_segment(key: KeyFrame, encoded: asyncio.Event) -> None:
            try:
                segment = await self._segment(job, cutter, key)
                async with self._attempts.run(SegmentRun(segment, encoded.set)) as result:
                    done.append(result)
            finally:
                slots.release()
            frames = sum(cutter.frames_in(result.segment_index) for result in done)
            nodes = sorted({result.placement.arm.node_id for result in done})
            await report(JobProgress(min(1.0, frames / job.facts.frame_count), tuple(nodes)))

        while True:
            await slots.acquire()
            key = await asyncio.to_thread(cutter.next_key_frame)
            if key is None:
                return
            encoded = asyncio.Event()
            group.create_task(run_segment(key, encoded))
            await encoded.wait()  # the clip is read once, in order

    async def _segment(self, job: VideoJob, cutter: ClipCutter, key: KeyFrame) -> SegmentTask:
        task = job.task(key.segment_index, self._origin)
        facts = job.facts
        frames = -(-key.frame_count // (job.frame_stride or 1))
        probe = TaskProfile(
            frame_count=frames,
            width=key.luma_width,
            height=key.luma_height,
            fps=facts.fps,
            input_bytes=facts.size_bytes * key.frame_count // facts.frame_count,
        )
        profile = await self._profiler.profile_video(task, probe, key.luma)
        info = SegmentInfo(
            key.segment_index, frames, facts.width, facts.height, classes=job.classes, min_score=job.min_score
        )
        first = True

        async def encode(arm: Arm) -> list[EncodedFrame]:
            nonlocal first
            if first:
                first = False
                return await asyncio.to_thread(cutter.encode, arm)
            return await asyncio.to_thread(cutter.encode_again, key.segment_index, arm)

        return SegmentTask(task, replace(profile, width=facts.width, height=facts.height), info, encode)


def _merged(job: VideoJob, done: list[SegmentResult], wall_s: float) -> dict[str, Any]:
    done = sorted(done, key=lambda result: result.segment_index)
    return {
        "task_id": job.task_id,
        "clip": job.facts.model_dump(),
        "wall_s": round(wall_s, 3),
        "segments": [result.entry() for result in done],
        "frames": [
            {
                "frame_index": frame.frame_index,
                "timestamp_s": round(frame.timestamp_s, 4),
                "detections": [asdict(box) for box in frame.detections],
            }
            for result in done
            for frame in result.frames
        ],
    }


async def write_result(target: Path, data: bytes) -> None:
    """Write the result of a clip. The work is done, so it waits for a disk that is full.

    Raises:
        DiskFull, DiskUnavailable: the disk did not take it for `RESULT_WITHIN_S`.
    """
    last: list[BaseException] = []
    try:
        async with asyncio.timeout(RESULT_WITHIN_S):
            await until_done("results", lambda: asyncio.to_thread(write_atomically, target, data), last.append)
    except TimeoutError as late:
        with disk_errors():
            raise (last[-1] if last else late) from late
