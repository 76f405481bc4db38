"""Log files of a bounded size, on a disk that may refuse them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

MOST_BYTES = 16 * 1024 * 1024
"""Size at which a file is renamed and a new one begun."""
KEPT = 3
"""Older files of each log, `NAME.log.1` being the newest: a log takes (KEPT + 1) × MOST_BYTES at most."""
TRY_AGAIN_S = 1.0


class RotatingLog:
    """Appends to a file and renames it when it is large. A write that fails is dropped, and the process goes on.

    Once the disk takes data again, a line says how many bytes are missing.
    """

    def __init__(
        self,
        path: Path,
        *,
        new: bool = False,
        most_bytes: int = MOST_BYTES,
        kept: int = KEPT,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`new` begins with an empty file."""
        self._path, self._most_bytes, self._kept, self._now_s = path, most_bytes, kept, now_s
        self._file: FileIO | None = None
        self._mode = "wb" if new else "ab"
        self._size_bytes = self._lost_bytes = 0
        self._try_at_s = float("-inf")

    def write(self, data: bytes) -> None:
        """Append; never raises for a disk that fails."""
        if self._file is None and self._now_s() < self._try_at_s:
            self._lost_bytes += len(data)
            return
        lost = b"[%d bytes are missing here: the disk did not take them]\n" % self._lost_bytes
        data = (lost if self._lost_bytes else b"") + data
        try:
            self._append(data)
        except OSError:
            self._lost_bytes += len(data) - (len(lost) if self._lost_bytes else 0)
            self._try_at_s = self._now_s() + TRY_AGAIN_S
            self.close()
        else:
            self._lost_bytes = 0

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def _append(self, data: bytes) -> None:
        if self._file is not None and self._size_bytes + len(data) > self._most_bytes and self._size_bytes:
            self._rotate()
        if self._file is None:
            self._file = FileIO(self._path, self._mode)
            self._mode = "ab"
            self._size_bytes = self._file.seek(0, 2)
            if self._size_bytes + len(data) > self._most_bytes and self._size_bytes:
                return self._append(data)
        left = memoryview(data)
        while left:
            written = self._file.write(left) or 0
            self._size_bytes += written
            left = left[written:]
        return None

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            with suppress(FileNotFoundError):
                newer.replace(older)
        if not self._kept:
            self._mode = "wb"


class TextLog:
    """A RotatingLog as the text file of a console."""

    encoding = "utf-8"

    def __init__(self, log: RotatingLog) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """Append text."""
        self._log.write(text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        """A file is no terminal."""
        return False
