"""Encodes frames for the link: single JPEGs by OpenCV, H.264 segments by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext

from skyshore.adapters.video_decode import Picture
from skyshore.adapters.video_source import ClipFrame
from skyshore.domain.errors import Internal, InvalidTask
from skyshore.domain.video import Codec, EncodedFrame


def fit(picture: Picture, longer_side: int) -> Picture:
    """Shrink to a longer side of `longer_side` pixels, sides even; 0 keeps the picture, and nothing is enlarged."""
    height, width = picture.shape[:2]
    if longer_side <= 0 or longer_side >= max(height, width):
        return picture
    ratio = longer_side / max(height, width)
    size = tuple(max(round(side * ratio / 2) * 2, 2) for side in (width, height))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_jpeg(picture: Picture, quality: int, longer_side: int = 0) -> bytes:
    """Encode one frame; `quality` is 1..100.

    Raises:
        InvalidTask: a quality outside that range.
    """
    if not 1 <= quality <= 100:
        raise InvalidTask(f"JPEG quality is 1..100, not {quality}", param="encode_quality")
    done, data = cv2.imencode(".jpg", fit(picture, longer_side), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise Internal("OpenCV could not encode a frame as JPEG")
    return data.tobytes()


H264_ENCODERS = ("libx264", "libopenh264")


def h264_encoder() -> str | None:
    """Name of an H.264 encoder of this FFmpeg build, or None."""
    return next((name for name in H264_ENCODERS if name in av.codecs_available), None)


class H264Encoder:
    """Encodes one segment, one access unit per frame, without delay (see `video_decode` for the layout).

    `crf` is x264's constant rate factor: 0 lossless, 51 worst.
    """

    def __init__(self, width: int, height: int, fps: float, crf: int) -> None:
        """Open the codec for frames of that size. Odd sides lose a pixel, because the colour planes have half the size.

        Raises:
            InvalidTask: an impossible rate factor, or no H.264 encoder in this build.
        """
        if not 0 <= crf <= 51:
            raise InvalidTask(f"the H.264 constant rate factor is 0..51, not {crf}", param="encode_quality")
        if "libx264" not in av.codecs_available:
            raise InvalidTask("this FFmpeg build has no libx264; use JPEG frames", param="codec")
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = max(width // 2 * 2, 2), max(height // 2 * 2, 2)
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / Fraction(fps).limit_denominator(1001)
        context.thread_count = 1
        # zerolatency: no B-frames and no look-ahead, so that the n-th packet is the n-th frame.
        context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf), "x264-params": "annexb=1"}
        self._context = context
        self._count = 0

    def encode(self, picture: Picture) -> bytes:
        """Encode the next frame; one of another size is scaled."""
        size = (self._context.width, self._context.height)
        if picture.shape[1::-1] != size:
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts = self._count
        self._count += 1
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise Internal(f"the H.264 encoder answered one frame with {len(packets)} packets")
        return bytes(packets[0])


@dataclass(frozen=True, slots=True)
class Encoding:
    """Encoding of one arm's frames."""

    codec: Codec
    quality: int
    """JPEG quality, or H.264 constant rate factor."""
    input_size: int = 0
    """Longer side in pixels; 0 keeps the source's."""
    frame_stride: int = 1


def encode_segment(frames: Iterable[ClipFrame], encoding: Encoding, fps: float) -> Iterator[EncodedFrame]:
    """Stride, scale and compress frames; `fps` is that of `frames`, before striding.

    Raises:
        InvalidTask: an impossible quality, or no encoder for the codec.
    """
    h264: H264Encoder | None = None
    for position, frame in enumerate(frames):
        if position % encoding.frame_stride:
            continue
        if encoding.codec is Codec.JPEG:
            data = encode_jpeg(frame.picture, encoding.quality, encoding.input_size)
        else:
            picture = fit(frame.picture, encoding.input_size)
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if h264 is None:
                rate = fps / encoding.frame_stride
                h264 = H264Encoder(picture.shape[1], picture.shape[0], rate, encoding.quality)
            data = h264.encode(picture)
        yield EncodedFrame(frame.index, frame.timestamp_s, data)
