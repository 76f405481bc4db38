"""Reads a caller's clip in a process of its own, as `video_source` does, so that a hostile file harms nothing else.

The process may open no further file or connection, and its processor time and memory are limited. It is killed when it
sends nothing for too long, when its reader stops, and when the process that asked ends. What it sends is numbers,
pixels and text; nothing of it is executed.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock, Thread

import numpy as np

from skyshore.adapters import video_source
from skyshore.adapters.video_source import ClipFrame, ClipInfo, ClipLimits
from skyshore.domain.errors import InvalidMedia, NotFound

_DONE, _ERROR, _INFO, _PICTURE, _ALIVE = b"D", b"E", b"I", b"P", b"A"
"""Kinds of message. The pixels of a picture follow it in a message of their own."""
_FRAME = struct.Struct("<cqdII")
"""Kind, index, seconds, height, width."""
PIPE_BYTES = 1024 * 1024
"""So that the process works ahead by a frame or more, instead of 64 KiB."""
_ALIVE_EVERY = 16
"""Frames between two signs of life."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What one reading of a clip may take."""

    silent_s: float = 20.0
    """Until the properties, or the next frame, are there."""
    cpu_s: int = 3600
    memory_bytes: int = 2 * 1024**3
    """Of data; code and files that are mapped do not count."""
    niceness: int = 5
    """Reading clips gives way to answering requests."""


def probe(path: Path, limits: ClipLimits | None = None, reading: ReadLimits | None = None) -> ClipInfo:
    """`video_source.probe` in a process of its own; it counts all packets within `silent_s`.

    Raises:
        InvalidMedia: also for a clip that takes too long, too much memory, or ends the process.
    """
    with _reading("probe", path, 1, limits, reading) as messages:
        info: dict[str, object] = json.loads(next(messages)[1:])
    return ClipInfo(**info)  # type: ignore[arg-type]


def frames(
    path: Path, *, stride: int = 1, limits: ClipLimits | None = None, reading: ReadLimits | None = None
) -> Iterator[ClipFrame]:
    """`video_source.frames` in a process of its own. Raises InvalidMedia as `probe`."""
    with _reading("frames", path, stride, limits, reading) as messages:
        for message in messages:
            _, index, timestamp_s, height, width = _FRAME.unpack(message)
            pixels = np.frombuffer(next(messages), np.uint8).reshape(height, width, 3)
            yield ClipFrame(index, timestamp_s, pixels)


def stop_reading() -> None:
    """Kill all processes that read clips now. Their callers get InvalidMedia."""
    with _lock:
        for process in _running:
            process.kill()


_running: set[BaseProcess] = set()
_lock = Lock()


@contextmanager
def _reading(
    what: str, path: Path, stride: int, limits: ClipLimits | None, reading: ReadLimits | None
) -> Iterator[Iterator[bytes]]:
    """Start a process and yield its messages; it is gone when the context ends."""
    if not path.is_file():
        raise NotFound(f"the clip {path.name} is not here any more")
    reading = reading or ReadLimits()
    context = multiprocessing.get_context("forkserver")  # which has the libraries loaded: a start takes milliseconds
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    with suppress(OSError):  # beyond what the user may have in all pipes, it keeps its size
        fcntl.fcntl(here.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process = context.Process(target=_read, args=(there, what, path, stride, limits or ClipLimits(), reading))
    process.start()
    there.close()  # so that the pipe closes when the process ends
    with _lock:
        _running.add(process)
    try:
        yield _messages(here, path, reading)
    finally:
        process.kill()
        process.join()
        with _lock:
            _running.discard(process)
        process.close()
        here.close()


def _messages(pipe: Connection, path: Path, reading: ReadLimits) -> Iterator[bytes]:
    while (message := _received(pipe, path, reading)) != _DONE:
        if message.startswith(_ERROR):
            raise InvalidMedia(message[1:].decode())
        if message != _ALIVE:
            yield message
        if message.startswith(_PICTURE):
            yield _received(pipe, path, reading)


def _received(pipe: Connection, path: Path, reading: ReadLimits) -> bytes:
    if not pipe.poll(reading.silent_s):
        raise InvalidMedia(f"{path.name} takes longer than {reading.silent_s:g} s to read; shorten it or convert it")
    try:
        return pipe.recv_bytes()
    except (EOFError, OSError) as error:
        raise InvalidMedia(f"{path.name} could not be read within the limits of time and memory") from error


# --------------------------------------------------------------------------------------------- in the other process


def _read(  # noqa: PLR0917 (a process takes its arguments by position)
    pipe: Connection, what: str, path: Path, stride: int, limits: ClipLimits, reading: ReadLimits
) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(reading.niceness)
    with suppress(BrokenPipeError):  # the reader has stopped
        try:
            _limit(reading)
            if what == "probe":
                pipe.send_bytes(_INFO + json.dumps(asdict(video_source.probe(path, limits))).encode())
            else:
                _send_frames(pipe, path, stride, limits)
            pipe.send_bytes(_DONE)
        except InvalidMedia as error:
            pipe.send_bytes(_ERROR + error.message.encode())
        except MemoryError:
            pipe.send_bytes(_ERROR + f"{path.name} needs too much memory to read; convert it".encode())


def _end_with_parent() -> None:
    """End when the process that asked ends, whatever this one is doing: the libraries work without Python's lock."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _send_frames(pipe: Connection, path: Path, stride: int, limits: ClipLimits) -> None:
    def alive(index: int) -> None:
        if index % _ALIVE_EVERY == 0:
            pipe.send_bytes(_ALIVE)

    for frame in video_source.frames(path, stride=stride, limits=limits, decoded=alive):
        height, width = frame.picture.shape[:2]
        pipe.send_bytes(_FRAME.pack(_PICTURE, frame.index, frame.timestamp_s, height, width))
        pipe.send_bytes(np.ascontiguousarray(frame.picture).data.cast("B"))


def _limit(reading: ReadLimits) -> None:
    opened = max(int(number) for number in os.listdir("/proc/self/fd"))
    for what, most in (
        (resource.RLIMIT_CPU, reading.cpu_s),
        (resource.RLIMIT_DATA, reading.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, opened + 1),  # the clip and nothing beside it
    ):
        resource.setrlimit(what, (most, most))
