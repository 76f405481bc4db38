"""A caller's file is read by its own bytes only, in a process that can be stopped whatever it does."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from skyshore.adapters import video_sandbox, video_source
from skyshore.adapters.video_sandbox import ReadLimits
from skyshore.domain.errors import InvalidMedia, NotFound
from tests.component.test_video_media import write_clip
from tests.fakes.hostile_clips import references


@pytest.fixture(scope="module")
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


ROOT = Path(__file__).parents[2]
NAMES = [name for name, _ in references("/t", "http://127.0.0.1:1")]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_refers_to_others_is_refused_unread(tmp_path: Path, listener: socket.socket, name: str) -> None:
    victim = write_clip(tmp_path / "victim.mp4")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    path = tmp_path / "upload"
    path.write_bytes(dict(references(str(victim), url))[name])
    with pytest.raises(InvalidMedia, match=r"no video file"):
        video_source.probe(path)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_there_are_many_kinds() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 40


def mov_with_reference(path: Path, target: str) -> None:
    """A QuickTime file whose samples are said to lie in another file (`dref` with an alias)."""
    data = write_clip(path.with_suffix(".mov")).read_bytes()
    name = target.encode()
    alias = struct.pack(">I4sI", 12 + 4 + len(name), b"url ", 0) + name + b"\0" * 4
    at = data.index(b"dref") - 4
    size = struct.unpack(">I", data[at : at + 4])[0]
    dref = struct.pack(">I4sII", 16 + len(alias), b"dref", 0, 1) + alias
    path.write_bytes(data[:at] + dref + data[at + size :])


def test_a_reference_in_a_real_container_opens_nothing(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "upload"
    mov_with_reference(path, f"http://127.0.0.1:{listener.getsockname()[1]}/a.mov")
    with suppress(InvalidMedia):  # the moved boxes may make it unreadable; what matters is the listener
        video_source.probe(path)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_process_of_its_own_gives_the_same_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", count=20)
    assert video_sandbox.probe(path) == video_source.probe(path)
    for stride in (1, 3):
        ours, theirs = list(video_sandbox.frames(path, stride=stride)), list(video_source.frames(path, stride=stride))
        assert [(f.index, f.timestamp_s) for f in ours] == [(f.index, f.timestamp_s) for f in theirs]
        assert all(np.array_equal(a.picture, b.picture) for a, b in zip(ours, theirs, strict=True))
    assert not video_sandbox._running


def test_errors_keep_their_words(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidMedia, match=r"clip.mp4 is no video file"):
        video_sandbox.probe(path)
    with pytest.raises(InvalidMedia, match=r"clip.mp4 is no video file"):
        next(video_sandbox.frames(path))
    with pytest.raises(NotFound):
        video_sandbox.probe(tmp_path / "absent.mp4")


def test_a_reader_that_stops_leaves_no_process(tmp_path: Path) -> None:
    reading = video_sandbox.frames(write_clip(tmp_path / "clip.mkv", count=20))
    next(reading)
    (process,) = video_sandbox._running
    seen = psutil.Process(process.pid)
    reading.close()
    assert not seen.is_running()
    assert not video_sandbox._running


def fifo(path: Path) -> None:
    """A file that never ends: opening it waits for ever, whatever signal asks to stop."""
    os.mkfifo(path)


def test_a_clip_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    fifo(path)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    with pytest.raises(InvalidMedia, match=r"takes longer than 0.5 s"):
        video_sandbox.probe(path, reading=ReadLimits(silent_s=0.5))
    assert not video_sandbox._running


def test_all_reading_can_be_stopped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    failures: list[Exception] = []

    def read(path: Path) -> None:
        try:
            video_sandbox.probe(path)
        except InvalidMedia as error:
            failures.append(error)

    paths = [tmp_path / f"{number}.mp4" for number in range(8)]
    for path in paths:
        fifo(path)
    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for reader in readers:
        reader.start()
    while len(video_sandbox._running) < len(paths):
        time.sleep(0.01)
    ninth = write_clip(tmp_path / "ninth.mkv")
    assert video_sandbox.probe(ninth).frame_count == 10
    video_sandbox.stop_reading()
    for reader in readers:
        reader.join()
    assert len(failures) == len(paths)


def test_memory_of_the_process_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "large.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(3840, 2160, "yuv420p")))
        container.mux(stream.encode(None))
    assert video_sandbox.probe(path).width == 3840
    with pytest.raises(InvalidMedia, match=r"memory|no frame|damaged|cannot|can read"):
        next(video_sandbox.frames(path, reading=ReadLimits(memory_bytes=1024 * 1024)))


READER = """
import sys, threading, time
from pathlib import Path
from skyshore.adapters import video_sandbox
if __name__ == "__main__":
    Path.is_file = lambda _: True
    threading.Thread(target=video_sandbox.probe, args=(Path(sys.argv[1]),), daemon=True).start()
    while not video_sandbox._running:
        time.sleep(0.01)
    (process,) = video_sandbox._running
    print(process.pid, flush=True)
    sys.stdin.read()
"""


def test_a_reader_that_hangs_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    script, path = tmp_path / "reader.py", tmp_path / "clip.mp4"
    script.write_text(READER)
    fifo(path)
    with subprocess.Popen(
        [sys.executable, str(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        while child.status() != psutil.STATUS_SLEEPING or not child.nice():  # it has begun to read
            time.sleep(0.01)
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=60)
    assert (gone, alive) == ([child], [])
