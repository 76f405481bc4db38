"""Cameras as a workload: frames are periodic; the load varies with the objects in view and the frame rate.

No public trace of the arrivals of camera analytics exists. We use cameras with frame rates, phases, and object counts
per frame from a tracking ground truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival
from skyshore.workload.llm_traces import InvalidTrace

VideoKind: TypeAlias = Literal[TaskKind.VIDEO_DETECT, TaskKind.VIDEO_CLASSIFY]
"""Kind of the task of each segment. A classifier takes each segment as one clip."""


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera: a stream of segments, each sent when its last frame was taken."""

    name: str
    clip: str
    """Clip that is used as its picture."""
    fps: float
    segment_s: float
    deadline_s: float
    origin: str = ""
    service_class: str = "standard"
    kind: VideoKind = TaskKind.VIDEO_DETECT
    min_quality: float = 0.0
    phase_s: float | None = None
    """Start of the first segment; None draws it uniformly between 0 and `segment_s`."""
    objects: tuple[float, ...] = ()
    """Objects in view in each frame; repeated from the start at its end."""

    def __post_init__(self) -> None:
        """Raises ValueError for a camera without a frame per segment."""
        if self.fps <= 0 or self.segment_s <= 0 or self.fps * self.segment_s < 1:
            raise ValueError(f"camera {self.name}: fps x segment_s must give at least one frame")


def camera_arrivals(camera: CameraSpec, duration_s: float, rng: np.random.Generator) -> list[Arrival]:
    """The segments that are complete within `duration_s` seconds."""
    phase_s = rng.uniform(0, camera.segment_s) if camera.phase_s is None else camera.phase_s
    frames = round(camera.fps * camera.segment_s)
    return [
        Arrival(
            t_intended_s=phase_s + (index + 1) * camera.segment_s,
            request_id="",
            kind=camera.kind,
            service_class=camera.service_class,
            origin=camera.origin,
            session=camera.name,
            camera=camera.name,
            clip=camera.clip,
            first_frame=index * frames,
            frames=frames,
            fps=camera.fps,
            objects_per_frame=_mean_objects(camera.objects, index * frames, frames),
            deadline_s=camera.deadline_s,
            min_quality=camera.min_quality,
        )
        for index in range(max(0, math.floor((duration_s - phase_s) / camera.segment_s + 1e-9)))
    ]


def objects_per_frame(lines: Iterable[str]) -> tuple[float, ...]:
    """Objects in each frame of a MOT ground truth: `frame,id,left,top,w,h,…`, frames counted from 1.

    Raises:
        InvalidTrace: a line does not start with a frame number.
    """
    counts: Counter[int] = Counter()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                counts[int(line.split(",", 1)[0])] += 1
            except ValueError as error:
                raise InvalidTrace(f"line {number}: {error}; this is not a MOT ground truth") from error
    return tuple(float(counts[frame]) for frame in range(1, max(counts, default=0) + 1))


def _mean_objects(objects: Sequence[float], first: int, count: int) -> float:
    if not objects:
        return 0.0
    return round(sum(objects[(first + offset) % len(objects)] for offset in range(count)) / count, 3)
