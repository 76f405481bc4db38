"""Live pictures through OpenCV: a camera, a stream's URL, a file played at its own pace, a folder of pictures.

A camera does not wait. A thread reads at the source's pace into a bounded queue. When the reader of the queue is late,
the oldest frame is dropped and counted, so frames are always recent.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from skyshore.adapters.video_decode import Picture
from skyshore.adapters.video_source import ClipFrame
from skyshore.domain.errors import InvalidMedia, NotFound

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
OPEN_MS = 10_000
"""Milliseconds that a stream may take to answer, and to send its next frame."""
DEFAULT_FPS = 25.0


class PictureSource(Protocol):
    """A source of pictures, one after the other."""

    fps: float
    own_pace: bool
    """Whether `next` itself waits for the next picture, as a camera's does."""

    def next(self) -> Picture | None:
        """The next picture; None at the end."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...


def open_camera(source: str, fps: float = 0.0) -> PictureSource:
    """A device number (`0`), a URL, a file or a folder of pictures. `fps` overrides what the source says.

    Raises:
        NotFound: nothing there, or nothing that gives pictures.
    """
    path = Path(source)
    if path.is_dir():
        return _Folder(path, fps or DEFAULT_FPS)
    if path.is_file():
        return _Capture(str(path), fps, own_pace=False)
    if source.isdigit():
        return _Capture(int(source), fps, own_pace=True)
    if "://" in source:
        return _Capture(source, fps, own_pace=True)
    raise NotFound(f"'{source}' is no file, folder, URL or number of a camera", param="source")


class LiveFrames:
    """Iterates over a camera's frames as they arrive. Use it as a context manager, with one reader."""

    def __init__(self, camera: PictureSource, room: int) -> None:
        """`room` is the number of frames kept for a late reader."""
        self.fps = camera.fps
        self.dropped = 0
        """Frames that were dropped."""
        self._camera = camera
        self._line: deque[ClipFrame] = deque()
        self._room = room
        self._changed = threading.Condition()
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def __enter__(self) -> LiveFrames:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        self._camera.close()

    def __iter__(self) -> Iterator[ClipFrame]:
        """Frames in order, with gaps in their indices where some were dropped; raises what the camera raised."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or bool(self._line))
                if not self._line:
                    break
                frame = self._line.popleft()
            yield frame
        if self._failure is not None:
            raise self._failure

    def _read(self) -> None:
        began_s, index = time.monotonic(), 0
        try:
            while not self._ended and (picture := self._camera.next()) is not None:
                at_s = time.monotonic() - began_s if self._camera.own_pace else index / self.fps
                self._put(ClipFrame(index, at_s, picture))
                index += 1
                if not self._camera.own_pace:
                    self._wait_until(began_s + index / self.fps)
        except Exception as error:  # the reader raises it; this thread has no caller
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: ClipFrame) -> None:
        with self._changed:
            if len(self._line) >= self._room:
                self._line.popleft()
                self.dropped += 1
            self._line.append(frame)
            self._changed.notify_all()

    def _wait_until(self, due_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended, max(0.0, due_s - time.monotonic()))


class _Capture:
    """A camera, a stream or a file, by OpenCV."""

    def __init__(self, source: str | int, fps: float, *, own_pace: bool) -> None:
        self.own_pace = own_pace
        if isinstance(source, int):
            self._capture = cv2.VideoCapture(source)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_MS]
            self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise NotFound(f"'{source}' gives no pictures; check the address, and that no other program uses it")
        self.fps = fps or self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS

    def next(self) -> Picture | None:
        """See `PictureSource`."""
        there, picture = self._capture.read()
        return np.asarray(picture, np.uint8) if there else None

    def close(self) -> None:
        """See `PictureSource`."""
        self._capture.release()


class _Folder:
    """Pictures in the order of their names."""

    own_pace = False

    def __init__(self, folder: Path, fps: float) -> None:
        self.fps = fps
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
        if not self._paths:
            raise NotFound(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))})", param="source")
        self._next = 0

    def next(self) -> Picture | None:
        """See `PictureSource`. Raises InvalidMedia."""
        if self._next >= len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise InvalidMedia(f"{path.name} is no picture that can be read")
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """See `PictureSource`."""
