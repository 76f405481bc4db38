"""One claimed job, from its first record to its last.

Which ends count as a try of the job:

- It failed by itself (`Internal`, `NodeDied`, an unexpected error). After `tries` of them it goes to the dead letters.
- Something was away (see `gateway.endings`), or its gateway died or lost the claim: no try. But a job that was begun
  `starts` times in a row and finished no segment in between is perhaps what ends its gateways. It goes there, too.
- Any other error would occur again, so it ends the job at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from gateway.endings import is_absence
from gateway.video.job_queue import RunningJob
from gateway.video.job_results import JobFiles, JobProgress
from gateway.video.schema import VideoJob
from skyshore.domain.errors import Internal, NodeDied, NotFound, SkyshoreError
from skyshore.domain.job import Job, JobRank, TaskRecord, TaskState
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore
from skyshore.runtime.endure import DEPENDENCY_FAILED, until_done, why

log = structlog.get_logger()

RENEW_S = 1.0
"""Longest time between two renewals: a job that is cancelled at another gateway stops this much later."""
REPORT_EVERY_S = 0.25
"""Shortest time between two writes of progress."""
JobHandler = Callable[[VideoJob, Callable[[JobProgress], Awaitable[None]]], Awaitable[Path]]
"""Processes a job, reports its progress, and returns the file of its result."""


class JobLost(Exception):
    """The job was cancelled, ended or taken over: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """When a job is given up, and when its claim is free."""

    idle_s: float
    """Seconds after which an unrenewed claim is free."""
    tries: int
    starts: int


class JobRun:
    """Runs a job under the claim of `consumer`. Whatever it writes, it writes only while the claim is its own."""

    def __init__(
        self,
        store: StateStore,
        consumer: str,
        job: Job,
        rank: JobRank,
        *,
        handlers: Mapping[TaskKind, JobHandler],
        files: JobFiles,
        limits: JobLimits,
        on_end: Callable[[str], None],
    ) -> None:
        """`on_end` learns of the task when its last record is written."""
        self._store, self._consumer, self._job, self._rank = store, consumer, job, rank
        self._handlers, self._files, self._limits, self._on_end = handlers, files, limits, on_end
        self._record = TaskRecord(job.task_id, TaskKind.VIDEO_DETECT, TaskState.ACCEPTED, time.time(), time.time())
        self._has_progress = False
        self._lost = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written_at_s = -REPORT_EVERY_S
        self._log = log.bind(task_id=job.task_id, claim=job.deliveries)

    @property
    def task_id(self) -> str:
        """The job's task."""
        return self._job.task_id

    def as_running(self) -> RunningJob:
        """What the queue needs to know of it."""
        return RunningJob(self._rank, is_suspect=self._job.deliveries > 1 and not self._has_progress)

    def lose(self) -> None:
        """The job is cancelled: stop now."""
        self._lost.set()

    async def run(self) -> None:
        """Run it to its end, or to the end of this try. A job that did not end is claimed again after `idle_s`."""
        try:
            video = self._read()
            await self._begin(video)
            path = await self._while_claimed(video)
        except JobLost as reason:
            self._log.warning("job stopped", reason=str(reason))
            await self._clear_if_cancelled()
        except Exception as error:
            await self._failed(error)
        else:
            await self._end(replace(self._record, state=TaskState.DONE, progress=1.0, result_path=str(path)))

    def _read(self) -> VideoJob:
        try:
            return VideoJob.model_validate_json(self._job.body)
        except ValueError as error:
            raise _GivenUp(f"the job cannot be read: {error}") from error

    async def _begin(self, video: VideoJob) -> None:
        """Write that it is begun once more, before anything of it is touched. Raises Internal after too many starts."""
        known = await until_done("job records", lambda: self._store.task(self.task_id)) or video.record()
        self._record = replace(known, state=TaskState.RUNNING, starts=known.starts + 1)
        if self._record.starts > self._limits.starts:
            raise _GivenUp(
                f"begun {known.starts} times, and the gateway ended each time before a segment was done; "
                "the clip may be the cause"
            )
        await until_done("job records", self._write)

    async def _while_claimed(self, video: VideoJob) -> Path:
        """Run the handler and keep the claim. Raises JobLost when the claim is gone."""
        work = asyncio.ensure_future(self._handlers[video.kind](video, self._report))
        claim = asyncio.create_task(self._keep_claim())
        try:
            await asyncio.wait([work, claim], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await claim  # raises why it ended
            return await work
        finally:
            for task in (work, claim):
                task.cancel()
            await asyncio.gather(work, claim, return_exceptions=True)

    async def _keep_claim(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), min(self._limits.idle_s / 3, RENEW_S))
                raise JobLost("it was cancelled")
            try:
                await self._renew()
            except DEPENDENCY_FAILED as error:
                self._log.warning("claim not renewed", **why(error))

    async def _report(self, progress: JobProgress) -> None:
        """Write progress to the record, at a limited rate. A write that fails is skipped."""
        is_first = progress.is_new and not self._has_progress
        self._has_progress |= progress.is_new
        self._record = replace(
            self._record,
            progress=progress.share,
            node_ids=progress.node_ids,
            starts=0 if self._has_progress else self._record.starts,
        )
        if not is_first and time.monotonic() - self._written_at_s < REPORT_EVERY_S:
            return
        self._written_at_s = time.monotonic()
        try:
            await self._write()
        except DEPENDENCY_FAILED as error:
            self._log.warning("progress not written", **why(error))

    async def _write(self) -> None:
        """Write the record as it is when the writes before it are done: an older one never comes last."""
        async with self._writing:
            await self._renew(replace(self._record, updated_at_s=time.time()))

    async def _renew(self, record: TaskRecord | None = None) -> None:
        try:
            await self._store.renew_job(self._consumer, self._job, record)
        except NotFound as error:
            raise JobLost(error.message) from error

    async def _failed(self, error: Exception) -> None:
        own = isinstance(error, Internal | NodeDied) or not isinstance(error, SkyshoreError)
        if not isinstance(error, SkyshoreError):
            self._log.exception("job failed with an unexpected error")
        if is_absence(error):
            self._log.warning("job waits for its next try", reason=str(error))
            return
        if not own or isinstance(error, _GivenUp):
            await self._end(failed(self._record, error), str(error) if own else "")
            return
        self._record = replace(self._record, failures=self._record.failures + 1)
        if self._record.failures < self._limits.tries:
            self._log.warning("job failed and is tried again", reason=str(error), failures=self._record.failures)
            with suppress(JobLost):
                await until_done("job records", self._write)
            return
        reason = error if isinstance(error, SkyshoreError) else Internal(type(error).__name__)
        reason = type(reason)(f"failed {self._record.failures} times, at last: {reason.message}")
        await self._end(failed(self._record, reason), reason.message)

    async def _end(self, record: TaskRecord, dead_reason: str = "") -> None:
        last = replace(record, updated_at_s=time.time())
        ended = await until_done(
            "job records", lambda: self._store.end_job(self._consumer, self._job, last, dead_reason)
        )
        if not ended:
            self._log.warning("job had ended or was taken over; this end is dropped", state=record.state)
            return
        self._on_end(self.task_id)
        await asyncio.to_thread(self._files.finished(self.task_id).clear)
        self._log.info("job ended", state=record.state, error=record.error, dead=bool(dead_reason))

    async def _clear_if_cancelled(self) -> None:
        """Delete what this run wrote after the cancellation had deleted the job's files."""
        record = await until_done("job records", lambda: self._store.task(self.task_id))
        if record and record.state is TaskState.CANCELLED:
            await asyncio.to_thread(self._files.delete, self.task_id)


class _GivenUp(Internal):
    """A failure that another try cannot change, and that a person should see."""


def failed(record: TaskRecord, error: Exception) -> TaskRecord:
    """The last record of a job that `error` ended."""
    shown = error if isinstance(error, SkyshoreError) else Internal(type(error).__name__)
    return replace(record, state=TaskState.FAILED, error_code=shown.code, error=shown.message)
