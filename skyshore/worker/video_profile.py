"""Measures each arm of a detector on a clip: time, CPU, bytes, joules, F1 and mAP50."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

import numpy as np

from skyshore.adapters.video_encode import Encoding, encode_segment, h264_encoder
from skyshore.adapters.video_source import ClipFrame, frames, probe
from skyshore.domain.errors import InvalidTask
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Codec, Detection, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.ports import EnergyMeter, VideoEngine
from skyshore.profiling.detection_quality import DetectionQuality, FrameBoxes, detection_quality
from skyshore.workload.annotations import Annotations
from skyshore.workload.synthetic.clips import StreetSpec, street_clip

LOWEST_SCORE = 0.05
"""Detections with lower scores than usual are needed as well: mAP ranks them."""
REFERENCE_QUALITY = 95
"""JPEG quality of the clip for a model that serves as the reference."""
WARM_UP_FRAMES = 4
DEADLINE_S = 3600.0


@dataclass(frozen=True, slots=True)
class TrialClip:
    """The clip on which all arms are measured, in memory, because every encoding needs the same frames."""

    name: str
    frames: tuple[ClipFrame, ...]
    fps: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.frames[0].picture.shape[:2]
        return width, height


@dataclass(frozen=True, slots=True)
class Trial:
    """Measurements of one run over the clip. Times are those of a full pipeline: from one result to the next."""

    frame_s: float
    frame_p95_s: float
    cpu_s: float
    joules_per_frame: float
    watts: float
    """Mean power above idle."""
    boxes: Mapping[int, tuple[Detection, ...]]


@dataclass(frozen=True, slots=True)
class Judge:
    """Computes the quality of boxes against annotations."""

    annotations: Annotations
    frame_indices: tuple[int, ...]
    min_score: float

    def quality(self, found: Mapping[int, Sequence[Detection]]) -> DetectionQuality:
        """Compare every frame of the clip. A skipped frame keeps the boxes of the last processed one."""
        shown: Sequence[Detection] = ()
        held: dict[int, tuple[Detection, ...]] = {}
        for index in self.frame_indices:
            shown = found.get(index, shown)
            held[index] = self.annotations.renamed(shown)
        return detection_quality(
            self._of_clip(self.annotations.boxes),
            held,
            min_score=self.min_score,
            ignored=self._of_clip(self.annotations.ignored),
        )

    def _of_clip(self, boxes: FrameBoxes) -> FrameBoxes:
        return {index: boxes[index] for index in self.frame_indices if index in boxes}


def read_clip(path: Path, count: int) -> TrialClip:
    """The first `count` frames of a clip. Raises InvalidMedia."""
    about = probe(path)
    return TrialClip(path.name, tuple(islice(frames(path), count)), about.fps)


def synthetic_clip(count: int, seed: int) -> tuple[TrialClip, Annotations]:
    """A synthetic street with its exact annotations; equal seeds give equal clips."""
    drawn = street_clip(StreetSpec(frame_count=count), np.random.default_rng(seed))
    pictures = (np.ascontiguousarray(frame[..., ::-1]) for frame in drawn.frames)
    clip_frames = tuple(ClipFrame(i, i / drawn.fps, picture) for i, picture in enumerate(pictures))
    boxes = {frame.frame_index: frame.detections for frame in drawn.truth}
    names = {label: label for label in ("person", "car", "bus")}
    return TrialClip(f"synthetic street, seed {seed}", clip_frames, drawn.fps), Annotations(
        "exact truth of a synthetic clip", boxes, names=names
    )


def feasible_encodings(
    clip: TrialClip, sizes: Iterable[int], jpeg: Iterable[int], crf: Iterable[int], strides: Iterable[int]
) -> list[Encoding]:
    """All different encodings that are possible here.

    A size that is not smaller than the frame means the size of the frame. H.264 needs an encoder. A stride must be
    shorter than the clip.

    Raises:
        InvalidTask: a parameter is out of range, or no encoding is possible.
    """
    longer = max(clip.size)
    kept = sorted({0 if size >= longer else size for size in sizes})
    codecs = [(Codec.JPEG, quality) for quality in sorted(set(jpeg), reverse=True)]
    if h264_encoder() == "libx264":
        codecs += [(Codec.H264, factor) for factor in sorted(set(crf))]
    steps = [stride for stride in sorted(set(strides)) if stride < len(clip.frames)]
    for name, values, low, high in (("sizes", kept, 0, 8192), ("strides", steps, 1, 1000)):
        if any(not low <= value <= high for value in values):
            raise InvalidTask(f"{name} must be {low}..{high}, not {values}", param=name)
    encodings = [Encoding(*codec, size, stride) for size, codec, stride in product(kept, codecs, steps)]
    if not encodings:
        raise InvalidTask("no encoding is possible; give at least one JPEG quality or rate factor, and a stride of 1")
    return encodings


async def agreement_with(engine: VideoEngine, clip: TrialClip, min_score: float) -> Annotations:
    """The boxes that `engine` finds in the clip at full size: a reference for a clip without annotations."""
    encoded = list(encode_segment(clip.frames, Encoding(Codec.JPEG, REFERENCE_QUALITY), clip.fps))
    trial = await run_trial(engine, clip, Codec.JPEG, encoded, meter=_NoMeter(), idle_watts=0.0)
    boxes = {index: tuple(box for box in found if box.score >= min_score) for index, found in trial.boxes.items()}
    labels = {box.label for found in trial.boxes.values() for box in found}
    return Annotations(f"agreement with {engine.model}, no ground truth", boxes, names=_Same(labels))


async def run_trial(
    engine: VideoEngine,
    clip: TrialClip,
    codec: Codec,
    encoded: Sequence[EncodedFrame],
    *,
    meter: EnergyMeter,
    idle_watts: float,
) -> Trial:
    """Run all frames through an idle engine, after a short warm-up, and measure."""
    await _pass(engine, clip, codec, encoded[:WARM_UP_FRAMES])
    joules, cpu_s, began_s = meter.joules(), time.process_time(), time.perf_counter()
    results = await _pass(engine, clip, codec, encoded)
    wall_s = time.perf_counter() - began_s
    count = len(encoded)
    active = max(0.0, meter.joules() - joules - idle_watts * wall_s)
    gaps = np.diff([at_s for at_s, _ in results]) if count > 1 else np.array([wall_s])
    return Trial(
        frame_s=float(np.median(gaps)),
        frame_p95_s=float(np.percentile(gaps, 95)),
        cpu_s=(time.process_time() - cpu_s) / count,
        joules_per_frame=active / count,
        watts=active / wall_s,
        boxes={found.frame_index: found.detections for _, found in results},
    )


async def profile_model(
    engine: VideoEngine,
    clip: TrialClip,
    encodings: Sequence[Encoding],
    judge: Judge,
    *,
    bare: VideoSpeed,
    meter: EnergyMeter,
    idle_watts: float,
    on_step: Callable[[str], None],
) -> list[VideoSpeed]:
    """One measured entry per encoding.

    `bare` gives what is not measured (slots, queue). `on_step` is called after each encoding. JPEG frames do not depend
    on each other, so all strides of one JPEG encoding share a run; H.264 is encoded again for each stride.
    """
    runs: dict[Encoding, tuple[Trial, Mapping[int, int]]] = {}
    entries = []
    for encoding in encodings:
        run = replace(encoding, frame_stride=1) if encoding.codec is Codec.JPEG else encoding
        if run not in runs:
            sent = list(encode_segment(clip.frames, run, clip.fps))
            trial = await run_trial(engine, clip, run.codec, sent, meter=meter, idle_watts=idle_watts)
            runs[run] = trial, {frame.frame_index: len(frame.data) for frame in sent}
        trial, sizes = runs[run]
        processed = [frame.index for frame in clip.frames[:: encoding.frame_stride]]
        quality = judge.quality({index: trial.boxes[index] for index in processed})
        entries.append(
            replace(
                bare,
                source=f"measured:{clip.name}, {len(processed)} frames",
                quality=round(quality.f1, 4),
                quality_source=f"F1 at IoU 0.5, {judge.annotations.source}",
                map50=round(quality.map50, 4),
                frame_s=trial.frame_s,
                frame_p95_s=trial.frame_p95_s,
                cpu_s=trial.cpu_s,
                joules_per_frame=trial.joules_per_frame,
                busy_watts=trial.watts,
                energy_source=meter.source,
                input_size=encoding.input_size,
                codec=encoding.codec,
                encode_quality=encoding.quality,
                frame_stride=encoding.frame_stride,
                bytes_per_frame=float(np.mean([sizes[index] for index in processed])),
            )
        )
        on_step(engine.model)
    return entries


async def _pass(
    engine: VideoEngine, clip: TrialClip, codec: Codec, encoded: Sequence[EncodedFrame]
) -> list[tuple[float, FrameDetections]]:
    async def send() -> AsyncIterator[EncodedFrame]:
        for frame in encoded:
            yield frame

    width, height = clip.size
    info = SegmentInfo(0, len(encoded), width, height, codec=codec, min_score=LOWEST_SCORE)
    task = Task("profile", TaskKind.VIDEO_DETECT, deadline_s=DEADLINE_S)
    results = []
    async for event in engine.detect(task, info, send()):
        if isinstance(event, FrameDetections):
            results.append((time.perf_counter(), event))
    return results


class _Same(dict[str, str]):
    """Maps every class to itself. A class that the reference did not find counts as an error."""

    def __init__(self, labels: Iterable[str]) -> None:
        super().__init__({label: label for label in labels})

    def __contains__(self, label: object) -> bool:
        return True

    def __missing__(self, label: str) -> str:
        return label


class _NoMeter:
    """For runs whose energy is not needed."""

    source = ""

    def joules(self) -> float:
        """Always 0."""
        return 0.0
