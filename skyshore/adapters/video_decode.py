"""Turns the frames of a segment back into pictures: JPEG by OpenCV, H.264 by PyAV.

How `EncodedFrame.data` is to be read:
- JPEG: one complete baseline or progressive JPEG file.
- H.264: one access unit in Annex B form (start codes), in decoding order, which is also display order: no B-frames.
  The first frame of a segment is an IDR picture with its parameter sets in front, so segments decode alone. The n-th
  access unit is the n-th picture. `video_encode.H264Encoder` writes exactly this.
"""

from __future__ import annotations

from typing import Protocol

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidMedia
from skyshore.domain.video import Codec

Picture = NDArray[np.uint8]
"""[height, width, 3], BGR."""

MAX_PIXELS = 8192 * 8192
"""A larger frame is refused before memory is allocated."""


class SegmentDecoder(Protocol):
    """Decodes one segment, frame by frame. Not for use from two threads at a time."""

    def decode(self, data: bytes) -> list[Picture]:
        """Take one frame's bytes; return the pictures that are now complete, oldest first.

        Raises:
            InvalidMedia: the bytes are no frame of this codec, or the picture is too large.
        """
        ...

    def flush(self) -> list[Picture]:
        """Return the pictures that the codec still holds; the segment is complete."""
        ...


def open_decoder(codec: Codec) -> SegmentDecoder:
    """Make a decoder for one segment."""
    return JpegDecoder() if codec is Codec.JPEG else H264Decoder()


class JpegDecoder:
    """Each frame stands alone."""

    def decode(self, data: bytes) -> list[Picture]:
        """Decode one JPEG file; see `SegmentDecoder.decode`."""
        width, height = jpeg_size(data)
        if width * height > MAX_PIXELS:
            raise InvalidMedia(f"a frame of {width}×{height} pixels is over the limit of {MAX_PIXELS} pixels")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InvalidMedia("a frame is no JPEG picture that can be decoded")
        return [np.asarray(picture, np.uint8)]

    def flush(self) -> list[Picture]:
        """Return nothing: no picture is delayed."""
        return []


class H264Decoder:
    """Keeps the reference pictures of one segment."""

    def __init__(self) -> None:
        context = av.CodecContext.create("h264", "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1  # frame threads would hold pictures back; segments run beside each other instead
        context.flags |= 1 << 19  # AV_CODEC_FLAG_LOW_DELAY: return a picture as soon as it is decoded
        self._context = context

    def decode(self, data: bytes) -> list[Picture]:
        """Decode one access unit; see `SegmentDecoder.decode`."""
        if not data:
            raise InvalidMedia("a frame of the segment is empty")
        packet: av.Packet[VideoStream] = av.Packet(data)  # type: ignore[assignment]  # the stubs fix its stream type
        return self._pictures(packet)

    def flush(self) -> list[Picture]:
        """Return the pictures that the codec still holds."""
        return self._pictures(None)

    def _pictures(self, packet: av.Packet[VideoStream] | None) -> list[Picture]:
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            raise InvalidMedia(f"a frame is no H.264 access unit that can be decoded ({error.strerror})") from error
        for frame in frames:
            if frame.width * frame.height > MAX_PIXELS:
                raise InvalidMedia(f"a frame of {frame.width}×{frame.height} pixels is over the limit")
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]


_STANDALONE = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length field."""
_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of all JPEG processes."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a JPEG's frame header without decoding it (ITU-T T.81, B.2.2).

    Raises:
        InvalidMedia: there is no such header.
    """
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_HEADERS:
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (5, 7))
            if width and height:
                return width, height
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    raise InvalidMedia("a frame is no JPEG picture: it has no frame header")
