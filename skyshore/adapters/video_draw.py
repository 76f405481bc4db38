"""Pictures for people: boxes on frames, an annotated MP4, a contact sheet."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from skyshore.adapters.video_decode import Picture
from skyshore.adapters.video_encode import h264_encoder
from skyshore.domain.errors import InvalidTask
from skyshore.domain.video import Detection

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(picture: Picture, detections: Iterable[Detection], note: str = "") -> Picture:
    """Draw boxes with class and score on a copy; `note` goes into the upper left corner."""
    canvas = picture.copy()
    scale = max(min(picture.shape[:2]) / 900, 0.4)
    thickness = max(round(scale * 2), 1)
    for found in detections:
        colour = _colour(found.label)
        corner = (round(found.x1), round(found.y1))
        cv2.rectangle(canvas, corner, (round(found.x2), round(found.y2)), colour, thickness, cv2.LINE_AA)
        _caption(canvas, f"{found.label} {found.score:.2f}", corner, colour, scale)
    if note:
        _caption(canvas, note, (0, round(26 * scale)), (40, 40, 40), scale)
    return canvas


def write_png(path: Path, picture: Picture) -> None:
    """Write one picture.

    Raises:
        OSError: the file could not be written.
    """
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def contact_sheet(pictures: Sequence[Picture], columns: int = 4, tile_width: int = 320) -> Picture:
    """Arrange pictures in rows, each scaled to the same width. All have the aspect ratio of the first.

    Raises:
        InvalidTask: there is nothing to show.
    """
    if not pictures:
        raise InvalidTask("a contact sheet needs at least one picture")
    height, width = pictures[0].shape[:2]
    tile_height = max(round(tile_width * height / width), 1)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.zeros((rows * tile_height, columns * tile_width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * tile_height, index % columns * tile_width
        tile = cv2.resize(picture, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
        sheet[top : top + tile_height, left : left + tile_width] = tile
    return sheet


class Mp4Writer:
    """Writes pictures of one size to an MP4 file: H.264 if this FFmpeg build has it, else MPEG-4 part 2.

    Use it as a context manager; the file is complete when the block is left.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Create the file; its size is that of the first picture, cut to even numbers."""
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream: VideoStream | None = None
        self._count = 0

    def write(self, picture: Picture) -> None:
        """Append a frame."""
        even = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
        if self._stream is None:
            self._stream = self._open_stream(even.shape[1], even.shape[0])
        frame = av.VideoFrame.from_ndarray(even, format="bgr24")
        frame.pts = self._count
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def _open_stream(self, width: int, height: int) -> VideoStream:
        codec = h264_encoder() or "mpeg4"
        options = {"preset": "veryfast", "crf": "23"} if codec == "libx264" else {}
        stream = self._container.add_stream(codec, rate=self._rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec != "libx264":
            stream.bit_rate = width * height * 4
        return stream

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _colour(label: str) -> tuple[int, int, int]:
    """A bright colour that stays the same for a label from run to run."""
    hue = zlib.crc32(label.encode()) % 180
    blue, green, red = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def _caption(canvas: Picture, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    x, y = corner[0], max(corner[1], height + base)
    cv2.rectangle(canvas, (x, y - height - base), (x + width, y), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 300 else (255, 255, 255)
    cv2.putText(canvas, text, (x, y - base // 2), _FONT, scale, ink, 1, cv2.LINE_AA)
