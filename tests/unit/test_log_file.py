"""Log files have a bounded size and may fail."""

import errno
import io
import os
from pathlib import Path
from typing import cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cli.launcher import log_file
from cli.launcher.log_file import RotatingLog
from skyshore.runtime import logs


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_large_log_is_renamed_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", most_bytes=10, kept=2)
    for number in range(5):
        log.write(b"line %d.\n" % number)
    log.close()
    assert content(tmp_path) == {"a.log": b"line 4.\n", "a.log.1": b"line 3.\n", "a.log.2": b"line 2.\n"}


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 64), st.integers(0, 3))
def test_the_total_is_bounded_and_ends_with_what_was_written_last(
    tmp_path_factory: pytest.TempPathFactory, writes: list[bytes], most_bytes: int, kept: int
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    log = RotatingLog(folder / "a.log", most_bytes=most_bytes, kept=kept)
    for data in writes:
        log.write(data)
    log.close()
    names = ["a.log", *(f"a.log.{number}" for number in range(1, kept + 1))]
    found = content(folder)
    assert set(found) <= set(names)
    assert all(len(data) <= max(most_bytes, 40) for data in found.values())
    assert b"".join(writes).endswith(b"".join(found.get(name, b"") for name in reversed(names)))


def test_a_log_goes_on_after_a_restart_or_is_emptied(tmp_path: Path) -> None:
    for new, expected in ((False, b"onetwo"), (True, b"two")):
        (tmp_path / "a.log").write_bytes(b"one")
        log = RotatingLog(tmp_path / "a.log", new=new)
        log.write(b"two")
        log.close()
        assert content(tmp_path) == {"a.log": expected}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_log_that_cannot_be_written_says_later_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    now_s = [0.0]
    log = RotatingLog(tmp_path / "a.log", now_s=lambda: now_s[0])
    log.write(b"before\n")

    class RefusingFile(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(log_file, "FileIO", RefusingFile)
        log.close()
        for _ in range(3):
            log.write(b"12345\n")
            now_s[0] += 0.6
    now_s[0] += 2.0
    log.write(b"after\n")
    log.close()
    said = b"before\n[18 bytes are missing here: the disk did not take them]\nafter\n"
    assert (tmp_path / "a.log").read_bytes() == said


def test_a_log_whose_folder_is_gone_stops_nobody(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "gone" / "a.log")
    log.write(b"x")
    log.write(b"y")


class Failing(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "full")

    def flush(self) -> None:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Failing(), closed(), None], ids=["full", "closed", "none"])
def test_a_line_that_cannot_be_logged_ends_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    before = structlog.get_config()
    try:
        for as_json in (True, False):
            logs.configure("p", as_json=as_json)
            structlog.get_logger().error("an event", why="nobody reads it")
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()


def test_a_stream_that_works_is_written_to() -> None:
    stream = io.StringIO()
    safe = logs.SafeStream(cast(io.TextIOWrapper, stream))
    print("hello", file=safe, flush=True)  # type: ignore[arg-type]
    assert stream.getvalue() == "hello\n"
