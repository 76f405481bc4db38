"""Reads a clip with PyAV: its properties, and its frames one by one, upright and in display order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from skyshore.adapters.containers import ALLOWED, HEAD_BYTES, container_of
from skyshore.adapters.video_decode import Picture
from skyshore.domain.errors import InvalidMedia


@dataclass(frozen=True, slots=True)
class ClipLimits:
    """Limits for clips."""

    pixels_per_frame: int = 4096 * 2304
    frames: int = 200_000


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """Properties of a clip's video. Sizes are those of the upright picture."""

    width: int
    height: int
    fps: float
    frame_count: int
    """Coded frames in the file, counted."""
    codec: str
    rotation: int
    """Degrees anti-clockwise that turn the stored picture upright: 0, 90, 180 or 270."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One decoded frame."""

    index: int
    timestamp_s: float
    """Seconds since the start of the clip."""
    picture: Picture


READ = 256 * 1024
"""Bytes that FFmpeg asks for at a time."""
_ONLY_THIS_FILE = {"protocol_whitelist": "none"}
"""There is no such protocol, so what a container refers to (other files, addresses) is not opened."""
_COMPLETE = 0.95
"""Share of the promised frames that must be in the file; containers may drop a few, a cut file lacks many."""


def probe(path: Path, limits: ClipLimits | None = None) -> ClipInfo:
    """Read a clip's properties, decode its first frame, and count its packets to detect a file that is cut off.

    Raises:
        InvalidMedia: no video, a broken, cut or empty one, or one over the limits.
    """
    limits = limits or ClipLimits()
    with _open(path) as container:
        stream = _video_stream(container, path, limits)
        first = next(_decoded(container, stream, path, limits), None)
        if first is None:
            raise InvalidMedia(f"{path.name} holds no frame that can be decoded")
        promised = stream.frames
    with _open(path) as container:  # opened again, as the decoder has read ahead
        stream = _video_stream(container, path, limits)
        count = _packets(container, stream, path, limits)
        if count < promised * _COMPLETE:
            raise InvalidMedia(f"{path.name} is cut off: it promises {promised} frames and holds {count}")
        return _info(container, stream, first, count)


def _packets(container: InputContainer, stream: VideoStream, path: Path, limits: ClipLimits) -> int:
    count = 0
    try:
        for packet in container.demux(stream):
            count += packet.size > 0
            if count > limits.frames:
                raise InvalidMedia(f"{path.name} has more than {limits.frames} frames; send it in parts")
    except av.FFmpegError as error:
        raise InvalidMedia(f"{path.name} is damaged or cut off ({error.strerror})") from error
    return count


def frames(
    path: Path, *, stride: int = 1, limits: ClipLimits | None = None, decoded: Callable[[int], None] | None = None
) -> Iterator[ClipFrame]:
    """Iterate over every `stride`-th frame. Memory does not grow with the clip's length.

    `decoded` is called with the index of each frame, skipped ones too.

    Raises:
        InvalidMedia: as `probe`, and when the clip breaks off in the middle.
    """
    limits = limits or ClipLimits()
    with _open(path) as container:
        stream = _video_stream(container, path, limits)
        seen, first_s = 0, 0.0
        for index, frame in enumerate(_decoded(container, stream, path, limits)):
            timestamp_s = frame.time if frame.time is not None else index / _rate(stream)
            first_s = timestamp_s if index == 0 else first_s
            seen = index + 1
            if seen > limits.frames:
                raise InvalidMedia(f"{path.name} has more than {limits.frames} frames; send it in parts")
            if decoded is not None:
                decoded(index)
            if index % stride == 0:
                yield ClipFrame(index, timestamp_s - first_s, upright(frame))
        if seen == 0:
            raise InvalidMedia(f"{path.name} holds no frame that can be decoded")


def upright(frame: VideoFrame) -> Picture:
    """Convert to BGR and undo the rotation the camera noted."""
    picture = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turns = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    turn = turns.get(_rotation(frame))
    return picture if turn is None else np.asarray(cv2.rotate(picture, turn), np.uint8)


def _rotation(frame: VideoFrame) -> int:
    """Nearest quarter turn, anti-clockwise, as FFmpeg's display matrix counts it."""
    return round(frame.rotation / 90) * 90 % 360


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    """Open by the file's own bytes, with one demuxer that can reach nothing else."""
    with path.open("rb") as file:
        name = container_of(file.read(HEAD_BYTES))
        if name is None:
            raise InvalidMedia(f"{path.name} is no video file this system reads; it reads {ALLOWED}")
        file.seek(0)
        try:
            container = av.open(
                file, "r", format=name, options=_ONLY_THIS_FILE, metadata_errors="ignore", buffer_size=READ
            )
        except av.FFmpegError as error:  # its own text contains folders of this machine
            raise InvalidMedia(f"{path.name} is no video file this system can read ({error.strerror})") from error
        with container:
            yield container


def _video_stream(container: InputContainer, path: Path, limits: ClipLimits) -> VideoStream:
    if not container.streams.video:
        raise InvalidMedia(f"{path.name} holds no video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InvalidMedia(f"{path.name}: no decoder for its video")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width <= 0 or height <= 0:  # FFmpeg drops sizes that it does not decode, such as 20000×20000
        raise InvalidMedia(f"{path.name} states no picture size this system can decode; it may be far too large")
    _check_size(width, height, path, limits)
    stream.thread_type = "AUTO"
    return stream


def _decoded(container: InputContainer, stream: VideoStream, path: Path, limits: ClipLimits) -> Iterator[VideoFrame]:
    try:
        for frame in container.decode(stream):
            _check_size(frame.width, frame.height, path, limits)
            yield frame
    except av.FFmpegError as error:
        raise InvalidMedia(f"{path.name} is damaged or cut off ({error.strerror})") from error


def _check_size(width: int, height: int, path: Path, limits: ClipLimits) -> None:
    if width * height > limits.pixels_per_frame:
        raise InvalidMedia(
            f"{path.name} has frames of {width}×{height} pixels; the limit is {limits.pixels_per_frame} pixels"
        )


def _rate(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else 25.0


def _info(container: InputContainer, stream: VideoStream, first: VideoFrame, count: int) -> ClipInfo:
    fps = _rate(stream)
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
    else:
        duration_s = (container.duration or 0) / av.time_base or count / fps
    rotation = _rotation(first)
    width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
    return ClipInfo(width, height, fps, count, stream.codec_context.name, rotation, duration_s)
