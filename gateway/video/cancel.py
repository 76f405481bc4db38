"""Cancels a job, whether it waits or runs, here or at another gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from gateway.video.job_results import JobFiles
from skyshore.domain.errors import NotFound, TaskEnded
from skyshore.domain.job import ENDED, TaskRecord, TaskState
from skyshore.ports import StateStore

log = structlog.get_logger()


class JobCancellation:
    """Ends jobs when their callers ask for it."""

    def __init__(
        self, store: StateStore, files: JobFiles, stop_job: Callable[[str], None], on_end: Callable[[str], None]
    ) -> None:
        """`stop_job` stops the job of a task if it runs in this process; `on_end` learns of a task that has ended."""
        self._store, self._files, self._stop_job, self._on_end = store, files, stop_job, on_end

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task and delete its files. Cancelling again changes nothing. Returns its last record.

        The job leaves the stream together with the write of the record. So a gateway that runs it can write nothing
        more, and stops at its next renewal, which cancels its segments on the nodes.

        Raises:
            NotFound: no such task.
            TaskEnded: it is done or failed.
            NodeUnavailable: the store is away; nothing is changed.
        """
        record = await self._record(task_id)
        if record.state not in ENDED:
            cancelled = replace(record, state=TaskState.CANCELLED, updated_at_s=time.time())
            if await self._store.cancel_job(cancelled):
                log.info("job cancelled", task_id=task_id)
                record = cancelled
            elif (record := await self._record(task_id)).state not in ENDED:  # else it ended in this moment
                log.warning("an open task had no job any more", task_id=task_id)
                await self._store.put_task(cancelled)
                record = cancelled
        if record.state is not TaskState.CANCELLED:
            raise TaskEnded(f"the task is {record.state}; only a task that waits or runs can be cancelled")
        self._stop_job(task_id)
        self._on_end(task_id)
        await asyncio.to_thread(self._files.delete, task_id)
        return record

    async def _record(self, task_id: str) -> TaskRecord:
        record = await self._store.task(task_id)
        if record is None:
            raise NotFound(f"no task '{task_id}'; records are kept for a day", param="task_id")
        return record
