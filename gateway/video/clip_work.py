"""The CPU work on clips, as blocking functions for a thread: probe, cut, sample, encode, annotate.

Imported when the first clip arrives, so that a gateway that serves text only stays small.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gateway.video.schema import ClipFacts
from skyshore.adapters import video_draw, video_sandbox
from skyshore.adapters.video_draw import Mp4Writer, draw, write_png
from skyshore.adapters.video_encode import Encoding, encode_segment, fit
from skyshore.adapters.video_source import ClipFrame
from skyshore.domain.errors import InvalidMedia
from skyshore.domain.node import Arm
from skyshore.domain.video import Detection, EncodedFrame

LUMA_SIDE = 640
"""Longer side of the grey key frame for the profiler, in pixels."""
SHEET_TILES = 12


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """The first frame of a segment, in the form that the profiler needs."""

    segment_index: int
    frame_count: int
    """Frames of the segment before striding."""
    luma: bytes
    luma_width: int
    luma_height: int


def probe(path: Path) -> ClipFacts:
    """Read size, rate and length of a clip. Raises InvalidMedia with the reason."""
    info = video_sandbox.probe(path)
    if info.frame_count < 1:
        raise InvalidMedia("the clip has no frames")
    return ClipFacts(
        width=info.width,
        height=info.height,
        fps=info.fps,
        frame_count=info.frame_count,
        size_bytes=path.stat().st_size,
    )


def stop_reading() -> None:
    """Stop all reading of clips at once."""
    video_sandbox.stop_reading()


class ClipCutter:
    """Reads a clip once, segment by segment, with one frame in memory. Not safe for several threads at once."""

    def __init__(self, path: Path, facts: ClipFacts, segment_s: float, stride: int | None) -> None:
        self._path, self._facts, self._stride = path, facts, stride
        self._per_segment = max(1, round(segment_s * facts.fps))
        self._frames = video_sandbox.frames(path, stride=stride or 1)
        self._ahead = next(self._frames, None)

    def next_key_frame(self) -> KeyFrame | None:
        """The first frame of the next segment; None at the end of the clip."""
        frame = self._ahead
        if frame is None:
            return None
        segment = frame.index // self._per_segment
        return _key_frame(frame, segment, max(1, self.frames_in(segment)))

    def encode(self, arm: Arm) -> list[EncodedFrame]:
        """Encode the segment of the last key frame for `arm`."""
        return encode_frames(self._segment(), arm, self._facts, self._stride)

    def skip(self) -> None:
        """Go past the segment of the last key frame."""
        for _ in self._segment():
            pass

    def span(self, segment_index: int) -> tuple[int, int]:
        """First frame of a segment, and the frame after its last one."""
        first = segment_index * self._per_segment
        return first, first + self.frames_in(segment_index)

    def encode_again(self, segment_index: int, arm: Arm) -> list[EncodedFrame]:
        """Encode an earlier segment for another arm; reads the clip again from its start."""
        first, end = segment_index * self._per_segment, (segment_index + 1) * self._per_segment
        return encode_frames(_between(self._path, first, end, self._stride or 1), arm, self._facts, self._stride)

    def frames_in(self, segment_index: int) -> int:
        """Frames of a segment before striding."""
        first = segment_index * self._per_segment
        return max(0, min(first + self._per_segment, self._facts.frame_count) - first)

    def _segment(self) -> Iterator[ClipFrame]:
        frame = self._ahead
        assert frame is not None
        segment = frame.index // self._per_segment
        while frame is not None and frame.index // self._per_segment == segment:
            yield frame
            frame = self._ahead = next(self._frames, None)


def first_key_frame(path: Path, frame_count: int) -> KeyFrame:
    """A clip's first frame, of a segment that is the whole clip. Raises InvalidMedia."""
    return _key_frame(next(video_sandbox.frames(path)), 0, frame_count)


def encode_sample(path: Path, facts: ClipFacts, count: int, arm: Arm) -> list[EncodedFrame]:
    """Encode `count` frames, evenly spaced over the clip, for `arm`. Holds one frame in memory."""
    chosen = set(np.rint(np.linspace(0, facts.frame_count - 1, min(count, facts.frame_count))).astype(int).tolist())
    return encode_frames((frame for frame in video_sandbox.frames(path) if frame.index in chosen), arm, facts, None)


def _key_frame(frame: ClipFrame, segment_index: int, frame_count: int) -> KeyFrame:
    grey = cv2.cvtColor(fit(frame.picture, LUMA_SIDE), cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    return KeyFrame(segment_index, frame_count, grey.tobytes(), width, height)


def _between(path: Path, first: int, end: int, stride: int) -> Iterator[ClipFrame]:
    for frame in video_sandbox.frames(path, stride=stride):
        if frame.index >= end:
            return
        if frame.index >= first:
            yield frame


def encode_frames(frames: Iterable[ClipFrame], arm: Arm, facts: ClipFacts, stride: int | None) -> list[EncodedFrame]:
    """Scale and compress frames for `arm`. Without a `stride` of the caller, the stride of the arm applies."""
    skip = 1 if stride else max(1, arm.frame_stride)
    encoding = Encoding(arm.codec, arm.encode_quality, arm.input_size, skip)
    return list(encode_segment(frames, encoding, facts.fps / (stride or 1)))


def annotate(clip: Path, facts: ClipFacts, boxes: Mapping[int, list[Detection]], target: Path) -> None:
    """Write `clip` with its boxes to `target`, completely or not at all. A skipped frame shows the last boxes."""
    partial = target.with_suffix(".partial.mp4")
    shown: list[Detection] = []
    try:
        with Mp4Writer(partial, facts.fps) as movie:
            for frame in video_sandbox.frames(clip):
                shown = boxes.get(frame.index, shown)
                movie.write(draw(frame.picture, shown))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def contact_sheet(clip: Path, _facts: ClipFacts, boxes: Mapping[int, list[Detection]], target: Path) -> None:
    """Write a PNG with at most `SHEET_TILES` of the processed frames, evenly spaced, to `target`."""
    processed = sorted(boxes)
    chosen = set(processed[:: max(1, -(-len(processed) // SHEET_TILES))])
    tiles = [
        draw(frame.picture, boxes[frame.index], f"{frame.timestamp_s:.1f} s")
        for frame in video_sandbox.frames(clip)
        if frame.index in chosen
    ]
    partial = target.with_suffix(".partial.png")
    try:
        write_png(partial, video_draw.contact_sheet(tiles))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
