"""Writes outcomes and task records to the state store in batches, off the request's path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from skyshore.domain.errors import NodeUnavailable, SkyshoreError
from skyshore.domain.job import TaskRecord
from skyshore.domain.outcome import Outcome
from skyshore.ports import StateStore
from skyshore.runtime import telemetry

log = structlog.get_logger()

RecordT = TypeVar("RecordT", Outcome, TaskRecord)

QUEUE_LIMIT = 20_000
"""Of each kind; the oldest are given up, and counted, when the store stays away for longer."""
BATCH = 512
FLUSH_EVERY_S = 0.05
"""The scheduler learns this much later; twenty round trips a second at most."""
RETRY_S = 1.0


class RecordWriter:
    """Takes values at once; tasks of its own write them. While the store is away requests go on.

    Then the scheduler hears of outcomes directly, or it would take every node for full before long. It gets them again
    from the store's stream, as others do, and knows those it has seen.
    """

    def __init__(self, store: StateStore, report: Callable[[Outcome], Awaitable[None]]) -> None:
        """`report` tells the scheduler of one outcome."""
        self._store, self._report = store, report
        self._outcomes: deque[Outcome] = deque()
        self._tasks: deque[TaskRecord] = deque()
        self._untold: deque[Outcome] = deque(maxlen=QUEUE_LIMIT)
        self._filled, self._away = asyncio.Event(), asyncio.Event()

    def outcome(self, outcome: Outcome) -> None:
        """Queue an outcome for the scheduler."""
        self._put(self._outcomes, outcome, "outcome")
        if self._away.is_set():
            self._untold.append(outcome)

    def task(self, record: TaskRecord) -> None:
        """Queue a task's record."""
        self._put(self._tasks, record, "task")

    async def run(self) -> None:
        """Write until cancelled; and whenever the store is away, tell the scheduler what ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_batches())
            group.create_task(self._tell_scheduler())

    async def _write_batches(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            try:
                await self.flush()
            except NodeUnavailable as error:
                if not self._away.is_set():
                    log.warning("records wait for the state store", reason=error.message)
                    self._untold = deque(self._outcomes, QUEUE_LIMIT)
                self._away.set()
                self._filled.set()
                await asyncio.sleep(RETRY_S)
                continue
            self._away.clear()
            await asyncio.sleep(FLUSH_EVERY_S)

    async def _tell_scheduler(self) -> None:
        while True:
            await self._away.wait()
            told = await asyncio.gather(*map(self._report, _next_batch(self._untold)), return_exceptions=True)
            for failure in told:
                # A scheduler that is away as well has forgotten what ran where.
                if isinstance(failure, BaseException) and not isinstance(failure, SkyshoreError):
                    raise failure
            await asyncio.sleep(FLUSH_EVERY_S)

    async def flush(self) -> None:
        """Write all that waits. Raises NodeUnavailable; what was not written stays."""
        await _write(self._outcomes, self._store.append_outcomes)
        await _write(self._tasks, self._store.put_tasks)

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, or count it as given up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except (NodeUnavailable, TimeoutError) as error:
            log.warning(
                "records lost at the end", outcomes=len(self._outcomes), tasks=len(self._tasks), reason=str(error)
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
