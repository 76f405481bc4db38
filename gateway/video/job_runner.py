"""Runs the jobs of the work stream: chooses and claims them, as many at a time as there are slots."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping

import structlog

from gateway.video.job_queue import next_job
from gateway.video.job_results import JobFiles
from gateway.video.job_run import JobHandler, JobLimits, JobRun
from skyshore.domain.job import WaitingJob
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore
from skyshore.runtime.endure import until_done

log = structlog.get_logger()

BLOCK_S = 2.0


class JobRunner:
    """Runs accepted jobs, `in_flight` at a time.

    A job leaves the stream together with the write of its last record. If its gateway dies, another one claims the job
    when it was not renewed for `limits.idle_s` seconds.
    """

    def __init__(
        self,
        store: StateStore,
        handlers: Mapping[TaskKind, JobHandler],
        files: JobFiles,
        limits: JobLimits,
        on_end: Callable[[str], None],
        *,
        in_flight: int,
    ) -> None:
        """`on_end` learns of every task that ends here."""
        self._on_end = on_end
        self._store, self._handlers, self._files, self._limits = store, handlers, files, limits
        self._in_flight = in_flight
        self.consumer = f"gateway-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._running: dict[str, JobRun] = {}
        """By entry id."""
        self._slot_freed = asyncio.Event()

    async def run(self) -> None:
        """Claim and run jobs until cancelled. Another gateway then claims the unfinished ones."""
        async with asyncio.TaskGroup() as group:
            while True:
                entry_id = await self._claim_next()
                group.create_task(self._run(entry_id))

    def stop_job(self, task_id: str) -> None:
        """The job of this task was cancelled: stop it, if it runs here."""
        for run in self._running.values():
            if run.task_id == task_id:
                run.lose()

    async def _run(self, entry_id: str) -> None:
        try:
            await self._running[entry_id].run()
        except Exception:  # the other jobs go on; this one is claimed again
            log.exception("a job's run broke off", entry_id=entry_id)
        finally:
            del self._running[entry_id]
            self._slot_freed.set()

    async def _claim_next(self) -> str:
        """Wait until a job may begin, and claim it. Returns its entry id."""
        while True:
            self._slot_freed.clear()
            if len(self._running) >= self._in_flight:
                await self._slot_freed.wait()
            elif entry_id := await until_done("claims", self._try_claim):
                return entry_id

    async def _try_claim(self) -> str:
        """Claim the job that may begin now. Without one, wait a while and return an empty id."""
        cursor, waiting = await self._store.waiting_jobs(self._limits.idle_s)
        chosen = self._choose(waiting)
        if chosen is None:
            await self._wait(cursor)
        elif await self._claim(chosen):
            return chosen.entry_id
        return ""

    def _choose(self, waiting: list[WaitingJob]) -> WaitingJob | None:
        # A job of our own looks free when the store was away: its claim could not be renewed.
        others = [job for job in waiting if job.entry_id not in self._running]
        running = [run.as_running() for run in self._running.values()]
        return next_job(others, running, self._in_flight, time.time())

    async def _claim(self, chosen: WaitingJob) -> bool:
        job = await self._store.claim_job(self.consumer, chosen.entry_id, self._limits.idle_s)
        if job is not None:
            self._running[job.entry_id] = JobRun(
                self._store,
                self.consumer,
                job,
                chosen.rank,
                handlers=self._handlers,
                files=self._files,
                limits=self._limits,
                on_end=self._on_end,
            )
        return job is not None

    async def _wait(self, cursor: str) -> None:
        """Return when a job arrived, a slot was freed, or some time has passed."""
        arrival = asyncio.create_task(self._store.wait_for_job(cursor, BLOCK_S))
        freed = asyncio.create_task(self._slot_freed.wait())
        try:
            await asyncio.wait([arrival, freed], return_when=asyncio.FIRST_COMPLETED)
            if arrival.done():
                await arrival
        finally:
            for task in (arrival, freed):
                task.cancel()
            await asyncio.gather(arrival, freed, return_exceptions=True)
