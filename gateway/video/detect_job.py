"""Finds objects in one clip: cuts it into segments, places them one by one, merges the boxes in frame order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.attempts import AttemptLoop
from gateway.video.finished import FinishedSegments, Part
from gateway.video.job_results import JobFiles, JobProgress
from gateway.video.schema import VideoJob
from gateway.video.segment_run import SegmentResult, SegmentRun, SegmentTask
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.ports import ProfilerClient

if TYPE_CHECKING:
    from gateway.video.clip_work import ClipCutter, KeyFrame


class DetectionJobs:
    """Turns detection jobs into result files."""

    def __init__(
        self,
        profiler: ProfilerClient,
        attempts: AttemptLoop,
        files: JobFiles,
        *,
        segment_s: float,
        in_flight: int,
        origin: str,
    ) -> None:
        """Set the limits.

        Args:
            profiler: looks at the first frame of each segment.
            attempts: runs the segments on nodes.
            files: where results and finished segments are kept.
            segment_s: seconds of video in one segment.
            in_flight: segments of one clip that run at the same time.
            origin: site of this gateway.
        """
        self._profiler, self._attempts, self._files = profiler, attempts, files
        self._segment_s, self._in_flight, self._origin = segment_s, in_flight, origin

    async def run(self, job: VideoJob, report: Callable[[JobProgress], Awaitable[None]]) -> Path:
        """Find the objects of a clip and return the file of its boxes. `report` is called after every segment.

        Segments that an earlier run has finished are taken from the disk.

        Raises:
            SkyshoreError: the first failure of a segment; the others are cancelled.
        """
        # OpenCV and PyAV take 100 MB and half a second: a gateway that serves text only never loads them.
        from gateway.video import clip_work  # noqa: PLC0415

        cutter = await asyncio.to_thread(
            clip_work.ClipCutter, Path(job.path), job.facts, self._segment_s, job.frame_stride
        )
        began_s = time.monotonic()
        done: dict[int, Part] = {}
        finished = self._files.finished(job.task_id)
        try:
            async with asyncio.TaskGroup() as group:
                await self._cut(job, cutter, group, _Progress(job, cutter, finished, done, report))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return await self._files.write_result(job, _merged(job, done, time.monotonic() - began_s))

    async def _cut(self, job: VideoJob, cutter: ClipCutter, group: asyncio.TaskGroup, progress: _Progress) -> None:
        """Start the segments in order, as fast as the nodes finish them."""
        slots = asyncio.Semaphore(self._in_flight)

        async def run_segment(key: KeyFrame, encoded: asyncio.Event) -> None:
            try:
                async with self._attempts.run(SegmentRun(self._segment(job, cutter, key), encoded.set)) as result:
                    pass
            finally:
                slots.release()
            await progress.add(result)

        while True:
            await slots.acquire()
            key = await asyncio.to_thread(cutter.next_key_frame)
            if key is None:
                return
            if await progress.is_finished(key.segment_index):
                slots.release()
                await asyncio.to_thread(cutter.skip)
                continue
            encoded = asyncio.Event()
            group.create_task(run_segment(key, encoded))
            await encoded.wait()  # the clip is read once, in order

    def _segment(self, job: VideoJob, cutter: ClipCutter, key: KeyFrame) -> SegmentTask:
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

        async def profile() -> TaskProfile:
            found = await self._profiler.profile_video(task, probe, key.luma)
            return replace(found, width=facts.width, height=facts.height)

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

        return SegmentTask(task, profile, info, encode)


class _Progress:
    """The finished segments of a job: in memory for the result, on disk for the next run."""

    def __init__(
        self,
        job: VideoJob,
        cutter: ClipCutter,
        finished: FinishedSegments,
        done: dict[int, Part],
        report: Callable[[JobProgress], Awaitable[None]],
    ) -> None:
        self._job, self._cutter, self._finished, self._done, self._report = job, cutter, finished, done, report

    async def is_finished(self, segment_index: int) -> bool:
        """Whether an earlier run has finished it; then it counts as done."""
        part = await asyncio.to_thread(self._finished.read, *self._cutter.span(segment_index))
        if part:
            self._done[segment_index] = part
            await self._report(self._state(is_new=False))
        return part is not None

    async def add(self, result: SegmentResult) -> None:
        """Keep a segment that is done."""
        index = result.segment_index
        part = self._done[index] = {"segment": result.entry(), "frames": _frames(result)}
        await asyncio.to_thread(self._finished.write, *self._cutter.span(index), part)
        await self._report(self._state(is_new=True))

    def _state(self, *, is_new: bool) -> JobProgress:
        frames = sum(self._cutter.frames_in(index) for index in self._done)
        nodes = tuple(sorted({part["segment"]["node"] for part in self._done.values()}))
        return JobProgress(min(1.0, frames / self._job.facts.frame_count), nodes, is_new)


def _frames(result: SegmentResult) -> list[dict[str, Any]]:
    return [
        {
            "frame_index": frame.frame_index,
            "timestamp_s": round(frame.timestamp_s, 4),
            "detections": [asdict(box) for box in frame.detections],
        }
        for frame in result.frames
    ]


def _merged(job: VideoJob, done: dict[int, Part], wall_s: float) -> dict[str, Any]:
    in_order = [done[index] for index in sorted(done)]
    return {
        "task_id": job.task_id,
        "clip": job.facts.model_dump(),
        "wall_s": round(wall_s, 3),
        "segments": [part["segment"] for part in in_order],
        "frames": [frame for part in in_order for frame in part["frames"]],
    }
