"""Names what one clip shows: a sample of its frames, placed as one task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from gateway.video.detect_job import Progress, write_whole
from gateway.video.schema import VideoJob
from gateway.video.segments import Segment, SegmentDispatcher, SegmentResult
from skyshore.domain.errors import DeadlineExceeded, Internal
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.ports import ProfilerClient


class ClassifyWork:
    """Turns jobs into result files. `results` is the folder for them."""

    def __init__(self, profiler: ProfilerClient, segments: SegmentDispatcher, results: Path, *, origin: str) -> None:
        self._profiler, self._segments, self._results, self._origin = profiler, segments, results, origin

    async def run(self, job: VideoJob, report: Callable[[Progress], Awaitable[None]]) -> Path:
        """Classify a clip and return the file of its labels.

        Raises:
            DeadlineExceeded: `job.deadline_s` passed since the clip was accepted, waiting for its turn included.
            SkyshoreError: whatever else ended the task.
        """
        began_s = time.monotonic()
        result = await self._segments.run(await self._segment(job), lambda: None)
        target = self._results / f"{job.task_id}.json"
        body = orjson.dumps(_verdict(job, result, time.monotonic() - began_s))
        await asyncio.to_thread(write_whole, target, body)
        await report(Progress(1.0, (result.placement.arm.node_id,)))
        return target

    async def _segment(self, job: VideoJob) -> Segment:
        from gateway.video import clip_work  # noqa: PLC0415 - see VideoWork.run

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
            raise DeadlineExceeded(f"the clip's turn did not come within {job.deadline_s:g} s; allow more time")
        info = SegmentInfo(0, count, facts.width, facts.height)
        whole = replace(profile, width=facts.width, height=facts.height)
        return Segment(replace(task, deadline_s=left_s), whole, info, encode)


def _verdict(job: VideoJob, result: SegmentResult, wall_s: float) -> dict[str, Any]:
    verdict = result.found.verdict
    if verdict is None:
        raise Internal("a clip was worked off without a verdict")
    pairs = zip(verdict.labels, verdict.scores, strict=True)
    return {
        "task_id": job.task_id,
        "clip": job.facts.model_dump(),
        "wall_s": round(wall_s, 3),
        "label": verdict.labels[0],
        "labels": [{"label": label, "score": round(score, 6)} for label, score in pairs],
        "ranks": verdict.ranks,
        "batch": verdict.batch,
        "segments": [result.entry()],
    }
