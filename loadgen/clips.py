"""Cuts of clips, encoded before the run: the upload of a camera for each of its segments."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.video.frame import VideoFrame

from loadgen.payloads import ClipCut
from skyshore.domain.errors import InvalidMedia, NotFound

CRF = "23"


class ClipFinder(Protocol):
    """Finds the file of a clip by its name."""

    def __call__(self, name: str) -> Path:
        """Raises NotFound."""
        ...


def cut_clips(cuts: Iterable[ClipCut], find: ClipFinder) -> dict[ClipCut, bytes]:
    """Encode every distinct cut as MP4; clips loop.

    Raises:
        NotFound: a clip that is not there.
        InvalidMedia: a file that holds no picture.
    """
    encoded: dict[ClipCut, bytes] = {}
    pictures: dict[tuple[str, float], list[VideoFrame]] = {}
    for cut in cuts:
        if cut in encoded:
            continue
        key = (cut.clip, cut.fps)
        if key not in pictures:
            pictures[key] = _sampled(find(cut.clip), cut.fps)
        loop = pictures[key]
        # Equal pictures, equal file: a position past the end of the clip is one inside it.
        chosen = [loop[(cut.first_frame + offset) % len(loop)] for offset in range(cut.frames)]
        home = ClipCut(cut.clip, cut.first_frame % len(loop), cut.frames, cut.fps)
        if home not in encoded:
            encoded[home] = _encode(chosen, cut.fps)
        encoded[cut] = encoded[home]
    return encoded


def find_file(name: str) -> Path:
    """A clip named by its path.

    Raises:
        NotFound: no such file.
    """
    path = Path(name)
    if not path.is_file():
        raise NotFound(f"no clip {name!r}: it is not in the catalogue and not a file", param="clip")
    return path


def _sampled(path: Path, fps: float) -> list[VideoFrame]:
    """Pictures at the times 0, 1/fps, 2/fps …, each the newest one then."""
    chosen: list[VideoFrame] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InvalidMedia(f"{path} holds no picture")
            rate = float(container.streams.video[0].average_rate or 25)
            for index, frame in enumerate(container.decode(video=0)):
                while len(chosen) / fps < (index + 1) / rate - 1e-9:
                    chosen.append(frame)
    except av.FFmpegError as error:
        raise InvalidMedia(f"{path} cannot be decoded: {error}") from error
    if not chosen:
        raise InvalidMedia(f"{path} holds no picture")
    return chosen


def _encode(frames: Sequence[VideoFrame], fps: float) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": CRF, "preset": "veryfast"})
        # H.264 in 4:2:0 needs even sides.
        stream.width, stream.height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(frames):
            fresh = picture.reformat(stream.width, stream.height, "yuv420p")
            fresh.pts, fresh.time_base = index, 1 / rate
            container.mux(stream.encode(fresh))
        container.mux(stream.encode())
    return buffer.getvalue()
