"""What a video task carries: encoded frames of one segment, and the boxes or the labels that come back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from skyshore.domain.outcome import WorkerOutcome


class Codec(StrEnum):
    """How frames travel to the node."""

    JPEG = "jpeg"
    H264 = "h264"


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A run of frames placed together; precedes the frames on the wire."""

    segment_index: int
    frame_count: int
    """Frames in the segment after striding."""
    source_width: int
    source_height: int
    """Size in pixels of the camera's picture; boxes are reported in these pixels."""
    codec: Codec = Codec.JPEG
    classes: tuple[str, ...] = ()
    """Class names wanted; empty means every class the model knows."""
    min_score: float = 0.3
    arm_id: str = ""
    """Arm the segment was placed on. The node fills it in for its engine; it is not sent."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame as it crosses the link."""

    frame_index: int
    """Position in the whole clip, counted from 0 before striding."""
    timestamp_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Detection:
    """One object: class name, score in 0..1, and box corners in source pixels."""

    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """All objects of one frame."""

    frame_index: int
    timestamp_s: float
    detections: tuple[Detection, ...]


class LabelScore(NamedTuple):
    """A class name and its probability in 0..1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """What a whole clip shows."""

    labels: tuple[LabelScore, ...]
    """Likeliest first; the scores add up to 1."""
    ranks: int = 1
    """Processes the model was sharded over."""
    batch: int = 1
    """Clips worked on together, this one included."""


SegmentEvent: TypeAlias = FrameDetections | Classification | WorkerOutcome
"""What the node returns for a segment."""
