"""A file for each accepted clip until it has ended: what the store loses is put into it again from here.

A store that is emptied, or restarts without its data, loses the work stream; a stream may be deleted alone. Without
these files such clips would be lost, or their records would say `running` for ever.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.video.schema import VideoJob
from skyshore.ports import StateStore
from skyshore.runtime.disk import disk_errors, write_atomically
from skyshore.runtime.endure import for_ever

log = structlog.get_logger()

EVERY_S = 5.0
SETTLED_S = 10.0
"""A younger file may belong to a clip that is being accepted at this moment."""


class AcceptedClips:
    """The files, and the loop that compares them with the store."""

    def __init__(self, store: StateStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._name = uuid.uuid4().hex

    async def add(self, job: VideoJob) -> bytes:
        """Keep the job, before the store gets it. Returns its body. Raises DiskFull, DiskUnavailable."""
        body = job.model_dump_json().encode()
        with disk_errors():
            await asyncio.to_thread(write_atomically, self._file(job.task_id), body)
        return body

    def remove(self, task_id: str) -> None:
        """Forget a job that the store did not take, or that ended."""
        with suppress(OSError):
            self._file(task_id).unlink(missing_ok=True)

    async def watch(self) -> None:
        """Restore what the store lost, and delete the files of clips that ended. Runs until cancelled."""
        await for_ever("accepted clips", self.restore, EVERY_S)

    async def restore(self) -> None:
        """Compare once. One gateway does it at a time."""
        before_s = time.time() - SETTLED_S
        task_ids = await asyncio.to_thread(_older, self._folder, before_s)
        if not task_ids or not await self._store.become_restorer(self._name, EVERY_S):
            return
        waiting = await self._store.open_jobs()
        for task_id in task_ids:
            if task_id not in waiting:
                await self._restore(task_id)

    async def _restore(self, task_id: str) -> None:
        try:
            body = await asyncio.to_thread(self._file(task_id).read_bytes)
            job = VideoJob.model_validate_json(body)
        except FileNotFoundError:
            return
        except ValueError as error:
            log.error("the file of an accepted clip cannot be read; it is deleted", task_id=task_id, why=str(error))
            self.remove(task_id)
            return
        if await self._store.restore_job(job.record(), body):
            log.warning("the store had lost an accepted clip; it waits again", task_id=task_id)
        else:
            self.remove(task_id)

    def _file(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.json"


def _older(folder: Path, than_s: float) -> list[str]:
    found = []
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < than_s:
                found.append(path.stem)
    return found
