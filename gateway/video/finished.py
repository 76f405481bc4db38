"""The finished segments of a job on disk: the next run of the job goes on from them.

One file for each segment, written completely or not at all, and named after its frames. So a segment that is done twice
is there once, and a segment that was cut with another length is not taken for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import structlog

from skyshore.runtime.disk import write_atomically

log = structlog.get_logger()

Part = dict[str, Any]
"""`segment`: its entry in the result; `frames`: its frames in the result."""


class FinishedSegments:
    """Blocking functions for a thread; `folder` is the job's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, first: int, end: int) -> Part | None:
        """The segment of the frames from `first` to before `end`, if it is finished and readable."""
        try:
            part: Part = orjson.loads(self._path(first, end).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("a finished segment cannot be read and is done again", reason=str(error))
            return None
        return part

    def write(self, first: int, end: int, part: Part) -> None:
        """Keep a segment. If the disk is full it is not kept: the job goes on, and a restart would do it again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(first, end), orjson.dumps(part))
        except OSError as error:
            log.warning("a finished segment is not kept", reason=error.strerror)

    def clear(self) -> None:
        """Delete all, when the result is written or the job is cancelled."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, first: int, end: int) -> Path:
        return self._folder / f"{first}-{end}.json"
