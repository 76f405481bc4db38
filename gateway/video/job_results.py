"""What the jobs of every kind report while they run, and the files that they leave."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from gateway.video.finished import FinishedSegments
from gateway.video.schema import VideoJob
from skyshore.domain.errors import Internal
from skyshore.runtime.disk import write_atomically

log = structlog.get_logger()

WRITE_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How much of a clip is done."""

    share: float
    """0..1."""
    node_ids: tuple[str, ...]
    is_new: bool = False
    """This run of the job finished a part itself."""


class JobFiles:
    """Uploads, results, and the finished segments of running jobs, each kind in a folder."""

    def __init__(self, uploads: Path, results: Path, parts: Path) -> None:
        self._uploads, self._results, self._parts = uploads, results, parts

    def finished(self, task_id: str) -> FinishedSegments:
        """The finished segments of a job."""
        return FinishedSegments(self._parts / task_id)

    def delete(self, task_id: str) -> None:
        """Delete every file of a job. Blocks."""
        self.finished(task_id).clear()
        for path in self._uploads.glob(f"*{task_id}"):  # see `upload_name`; a clip named by its URL lies elsewhere
            path.unlink(missing_ok=True)
        for path in self._results.glob(f"{task_id}.*"):
            path.unlink(missing_ok=True)

    async def write_result(self, job: VideoJob, result: dict[str, Any]) -> Path:
        """Write the result file of a job; wait for a disk that is full, at most for the job's deadline from now.

        Raises:
            Internal: it cannot be written until then.
        """
        target, data = self._results / f"{job.task_id}.json", orjson.dumps(result)
        ends_s = time.monotonic() + job.deadline_s
        while True:
            try:
                await asyncio.to_thread(write_atomically, target, data)
            except OSError as error:
                log.error("the result waits to be written", task_id=job.task_id, reason=error.strerror)
                if time.monotonic() >= ends_s:
                    raise Internal(f"the gateway cannot write the result: {error.strerror}; free its disk") from error
                await asyncio.sleep(WRITE_AGAIN_S)
            else:
                return target
