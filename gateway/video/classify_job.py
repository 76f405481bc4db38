"""Classifies one clip: a sample of its frames, placed as one task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from gateway.attempts import AttemptLoop
from gateway.video.detect_job import JobProgress, write_result
from gateway.video.schema import VideoJob
from gateway.video.segment_run import SegmentResult, SegmentRun, SegmentTask
from skyshore.domain.errors import DeadlineExceeded, Internal
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.ports import ProfilerClient


class ClassificationJobs:
    """Turns classification jobs into result files. `results` is the folder for them."""

    def __init__(self, profiler: ProfilerClient, attempts: AttemptLoop, results: Path, *, origin: str) -> None:
        self._profiler, self._attempts, self._results, self._origin = profiler, attempts, results, origin

    async def run(self, job: VideoJob, report: Callable[[JobProgress], Awaitable[None]]) -> Path:
        """Classify a clip and return the file of its labels.

        Raises:
            DeadlineExceeded: `job.deadline_s` passed since the clip was accepted, including the wait in the queue.
            SkyshoreError: whatever else ended the task.
        """
        began_s = time.monotonic()
        async with self._attempts.run(SegmentRun(await self._segment(job))) as result:
            pass
        target = self._results / f"{job.task_id}.json"
        body = orjson.dumps(_result(job, result, time.monotonic() - began_s))
        await write_result(target, body)
        await report(JobProgress(1.0, (result.placement.arm.node_id,)))
        return target

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
        profile = await self._profiler.profile_video(task, probe, key.luma)

        async def encode(arm: Arm) -> list[EncodedFrame]:
            return await asyncio.to_thread(clip_work.encode_sample, path, facts, count, arm)

        left_s = job.deadline_s - (time.time() - job.created_at_s)
        if left_s <= 0:
            raise DeadlineExceeded(f"the clip waited in the queue for {job.deadline_s:g} s; allow more time")
        info = SegmentInfo(0, count, facts.width, facts.height)
        whole = replace(profile, width=facts.width, height=facts.height)
        return SegmentTask(replace(task, deadline_s=left_s), whole, info, encode)


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
