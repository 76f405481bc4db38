"""Classifies one clip: a sample of its frames, placed as one task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.attempts import AttemptLoop
from gateway.video.job_results import JobFiles, JobProgress
from gateway.video.schema import VideoJob
from gateway.video.segment_run import SegmentResult, SegmentRun, SegmentTask
from skyshore.domain.errors import DeadlineExceeded, Internal
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.ports import ProfilerClient


class ClassificationJobs:
    """Turns classification jobs into result files."""

    def __init__(self, profiler: ProfilerClient, attempts: AttemptLoop, files: JobFiles, *, origin: str) -> None:
        self._profiler, self._attempts, self._files, self._origin = profiler, attempts, files, origin

    async def run(self, job: VideoJob, report: Callable[[JobProgress], Awaitable[None]]) -> Path:
        """Classify a clip and return the file of its labels.

        Raises:
            DeadlineExceeded: `job.deadline_s` passed since the clip was accepted, including the wait in the queue.
            SkyshoreError: whatever else ended the task.
        """
        began_s = time.monotonic()
        async with self._attempts.run(SegmentRun(await self._segment(job))) as result:
            pass
        await report(JobProgress(1.0, (result.placement.arm.node_id,), is_new=True))
        return await self._files.write_result(job, _result(job, result, time.monotonic() - began_s))

    async def _segment(self, job: VideoJob) -> SegmentTask:
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        facts, path = job.facts, Path(job.path)
        count = min(job.frames, facts.frame_count)
        key = await asyncio.to_thread(clip_work.first_key_frame, path, count)
        task = job.task(0, self._origin)
        probe = TaskProfile(
            frame_count=count,
            width=key.luma_width,
            height=key.luma_height,
            fps=facts.fps,
            input_bytes=facts.size_bytes,
        )

        async def profile() -> TaskProfile:
            found = await self._profiler.profile_video(task, probe, key.luma)
            return replace(found, width=facts.width, height=facts.height)

        async def encode(arm: Arm) -> list[EncodedFrame]:
            return await asyncio.to_thread(clip_work.encode_sample, path, facts, count, arm)

        left_s = job.deadline_s - (time.time() - job.created_at_s)
        if left_s <= 0:
            raise DeadlineExceeded(f"the clip waited in the queue for {job.deadline_s:g} s; allow more time")
        info = SegmentInfo(0, count, facts.width, facts.height)
        return SegmentTask(replace(task, deadline_s=left_s), profile, info, encode)


def _result(job: VideoJob, result: SegmentResult, wall_s: float) -> dict[str, Any]:
    found = result.classification
    if found is None:
        raise Internal("a node ended without the labels of the clip")
    return {
        "task_id": job.task_id,
        "clip": job.facts.model_dump(),
        "wall_s": round(wall_s, 3),
        "label": found.labels[0].label,
        "labels": [{"label": label, "score": round(score, 6)} for label, score in found.labels],
        "ranks": found.ranks,
        "batch": found.batch,
        "segments": [result.entry()],
    }
