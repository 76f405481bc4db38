"""Runs the jobs of the work stream: claims and renews them, and moves those that keep failing to the dead letters."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from gateway.endings import RETRIED
from gateway.video.detect_job import JobProgress
from gateway.video.schema import VideoJob
from skyshore.domain.errors import Internal, NotFound, SkyshoreError
from skyshore.domain.job import Job, TaskRecord, TaskState
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore
from skyshore.runtime.endure import DEPENDENCY_FAILED, until_done, why

log = structlog.get_logger()

BLOCK_S = 2.0
REPORT_EVERY_S = 0.25
"""Shortest time between two writes of progress."""
JobHandler = Callable[[VideoJob, Callable[[JobProgress], Awaitable[None]]], Awaitable[Path]]
"""Processes a job, reports its progress, and returns the file of its result."""


class JobRunner:
    """Runs accepted jobs, `in_flight` at a time.

    A job is acknowledged only after its last record is written. If its gateway dies, another one claims the job when it
    was not renewed for `idle_s` seconds.
    """

    def __init__(
        self, store: StateStore, handlers: Mapping[TaskKind, JobHandler], *, in_flight: int, idle_s: float, tries: int
    ) -> None:
        self._store, self._handlers = store, handlers
        self._in_flight, self._idle_s, self._tries = in_flight, idle_s, tries
        self.consumer = f"gateway-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    async def run(self) -> None:
        """Claim and run jobs until cancelled. Another gateway then claims the unfinished ones."""
        slots = asyncio.Semaphore(self._in_flight)
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                job = await self._claim()
                task = group.create_task(self._run_job(job))
                task.add_done_callback(lambda _: slots.release())

    async def _claim(self) -> Job:
        while True:
            jobs = await until_done("claims", lambda: self._store.claim_jobs(self.consumer, 1, BLOCK_S, self._idle_s))
            if jobs:
                return jobs[0]

    async def _run_job(self, job: Job) -> None:
        bound = log.bind(task_id=job.task_id, delivery=job.deliveries)
        if job.deliveries > self._tries:  # its gateway died each time, without an error
            await self._move_to_dead_letters(job, Internal(f"failed {self._tries} times"))
            return
        try:
            record = await self._while_renewed(job)
        except NotFound as error:
            bound.warning("another gateway claimed the job", reason=error.message)
        except RETRIED as error:
            bound.warning("job failed", reason=error.message)
            if job.deliveries >= self._tries:
                await self._move_to_dead_letters(job, error)
            # Otherwise it stays unacknowledged and is claimed again after `idle_s`.
        except Exception as error:
            bound.exception("job failed with an unexpected error")
            if job.deliveries >= self._tries:
                await self._move_to_dead_letters(job, Internal(f"failed {self._tries} times: {type(error).__name__}"))
        else:
            await until_done("ends of jobs", lambda: self._store.put_task(record))
            await until_done("ends of jobs", lambda: self._store.finish_job(job))
            bound.info("job ended", state=record.state, error=record.error)

    async def _while_renewed(self, job: Job) -> TaskRecord:
        """Run the job and renew it. If another gateway has claimed it, cancel the run and raise NotFound."""
        work = asyncio.create_task(self._process(job))
        lease = asyncio.create_task(self._renew(job))
        try:
            await asyncio.wait([work, lease], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await lease  # raises why it ended
            return await work
        finally:
            for task in (work, lease):
                task.cancel()
            await asyncio.gather(work, lease, return_exceptions=True)

    async def _renew(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._idle_s / 3)
            await until_done("job leases", lambda: self._store.renew_job(self.consumer, job))

    async def _process(self, job: Job) -> TaskRecord:
        """Run the handler of the job. An error that would occur again is a result as well."""
        try:
            video = VideoJob.model_validate_json(job.body)
        except ValueError as error:
            return _failed(_blank(job), Internal(f"the job cannot be read: {error}"))
        record = replace(video.record(), state=TaskState.RUNNING)
        reporter = _Reporter(self._store, record)
        try:
            await reporter(JobProgress(0.0, ()))
            path = await self._handlers[video.kind](video, reporter)
        except RETRIED:
            raise
        except SkyshoreError as error:
            return _failed(reporter.record, error)
        done = replace(reporter.record, state=TaskState.DONE, progress=1.0, result_path=str(path))
        return replace(done, updated_at_s=time.time())

    async def _move_to_dead_letters(self, job: Job, error: SkyshoreError) -> None:
        known: list[TaskRecord] = []

        async def read() -> None:
            found = await self._store.task(job.task_id)
            known.append(found or _blank(job))

        await until_done("ends of jobs", read)
        await until_done("ends of jobs", lambda: self._store.put_task(_failed(known[0], error)))
        await until_done("ends of jobs", lambda: self._store.move_to_dead_letters(job, error.message))
        log.error("job moved to dead letters", task_id=job.task_id, reason=error.message)


class _Reporter:
    """Writes progress to the record of the task, at a limited rate. A write that fails is skipped."""

    def __init__(self, store: StateStore, record: TaskRecord) -> None:
        self._store, self.record = store, record
        self._written_at_s = -REPORT_EVERY_S

    async def __call__(self, progress: JobProgress) -> None:
        self.record = replace(
            self.record, progress=progress.share, node_ids=progress.node_ids, updated_at_s=time.time()
        )
        now_s = time.monotonic()
        if now_s - self._written_at_s < REPORT_EVERY_S:
            return
        self._written_at_s = now_s
        try:
            await self._store.put_task(self.record)
        except DEPENDENCY_FAILED as error:
            log.warning("progress not written", task_id=self.record.task_id, **why(error))


def _blank(job: Job) -> TaskRecord:
    """A record for a job whose body cannot be read."""
    return TaskRecord(job.task_id, TaskKind.VIDEO_DETECT, TaskState.ACCEPTED, time.time(), time.time())


def _failed(record: TaskRecord, error: SkyshoreError) -> TaskRecord:
    return replace(record, state=TaskState.FAILED, error_code=error.code, error=error.message, updated_at_s=time.time())
