"""Writes outcomes and task records to the state store in batches, in the background."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from skyshore.domain.errors import SkyshoreError
from skyshore.domain.job import TaskRecord
from skyshore.domain.outcome import Outcome
from skyshore.ports import StateStore
from skyshore.runtime import telemetry
from skyshore.runtime.endure import DEPENDENCY_FAILED, for_ever

log = structlog.get_logger()

RecordT = TypeVar("RecordT", Outcome, TaskRecord)

QUEUE_LIMIT = 20_000
"""Records of each kind that may wait. If the store stays away, the oldest are dropped and counted."""
BATCH = 512
FLUSH_EVERY_S = 0.05
"""Seconds between two batches: outcomes reach the scheduler this much later."""


class RecordWriter:
    """Queues records without waiting; `run` writes them. Requests continue while the store is away.

    During that time outcomes go directly to the scheduler: without them it would soon count every node as full. It
    reads the same outcomes later from the store's stream and ignores those it already has.
    """

    def __init__(self, store: StateStore, report: Callable[[Outcome], Awaitable[None]]) -> None:
        """`report` sends one outcome directly to the scheduler."""
        self._store, self._report = store, report
        self._outcomes: deque[Outcome] = deque()
        self._tasks: deque[TaskRecord] = deque()
        self._unreported: deque[Outcome] = deque(maxlen=QUEUE_LIMIT)
        self._filled, self._away = asyncio.Event(), asyncio.Event()

    def outcome(self, outcome: Outcome) -> None:
        """Queue an outcome for the scheduler."""
        self._put(self._outcomes, outcome, "outcome")
        if self._away.is_set():
            self._unreported.append(outcome)

    def task(self, record: TaskRecord) -> None:
        """Queue a task's record."""
        self._put(self._tasks, record, "task")

    async def run(self) -> None:
        """Write until cancelled. While the store is away, send the outcomes to the scheduler."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_batches())
            group.create_task(self._report_outcomes())

    async def _write_batches(self) -> None:
        await for_ever("records", self._write_batch, FLUSH_EVERY_S, self._wait)

    async def _write_batch(self) -> None:
        if not self._away.is_set():
            await self._filled.wait()
        self._filled.clear()
        await self.flush()
        self._away.clear()

    def _wait(self, error: BaseException) -> None:
        if not self._away.is_set():
            self._unreported = deque(self._outcomes, QUEUE_LIMIT)
        self._away.set()

    async def _report_outcomes(self) -> None:
        while True:
            await self._away.wait()
            results = await asyncio.gather(*map(self._report, _next_batch(self._unreported)), return_exceptions=True)
            for failure in results:
                # If the scheduler is away as well, it starts with an empty state and needs no outcomes.
                if isinstance(failure, BaseException) and not isinstance(failure, SkyshoreError):
                    raise failure
            await asyncio.sleep(FLUSH_EVERY_S)

    async def flush(self) -> None:
        """Write all waiting records. Raises StoreUnavailable, StoreBusy; unwritten records stay in the queue."""
        await _write(self._outcomes, self._store.append_outcomes)
        await _write(self._tasks, self._store.put_tasks)

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write the remaining records; count those that cannot be written as dropped."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except DEPENDENCY_FAILED as error:
            log.warning(
                "records lost at shutdown", outcomes=len(self._outcomes), tasks=len(self._tasks), reason=str(error)
            )
            telemetry.RECORDS_DROPPED.labels("outcome").inc(len(self._outcomes))
            telemetry.RECORDS_DROPPED.labels("task").inc(len(self._tasks))

    def _put(self, queue: deque[RecordT], record: RecordT, kind: str) -> None:
        if len(queue) >= QUEUE_LIMIT:
            queue.popleft()
            telemetry.RECORDS_DROPPED.labels(kind).inc()
        queue.append(record)
        self._filled.set()


def _next_batch(queue: deque[RecordT]) -> list[RecordT]:
    return [queue.popleft() for _ in range(min(BATCH, len(queue)))]


async def _write(queue: deque[RecordT], write: Callable[[Sequence[RecordT]], Awaitable[None]]) -> None:
    while queue:
        batch = _next_batch(queue)
        try:
            await write(batch)
        except BaseException:
            queue.extendleft(reversed(batch))
            raise
