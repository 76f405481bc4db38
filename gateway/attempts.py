"""The attempt loop of every kind of task: place it, run it, try another node after a failure, record the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from gateway.attempt_log import AttemptLog, JoulesPerByte
from gateway.breaker import NodeBreakers
from gateway.endings import ABSENCES, COMPLETED, RETRIED, blames_node, ending_of
from gateway.records import RecordWriter
from gateway.retry_budget import RetryBudget
from gateway.tried import Tried
from skyshore.domain.errors import DeadlineExceeded, NodeUnavailable, NoFeasibleArm, SkyshoreError
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.ports import SchedulerClient, WorkerClient
from skyshore.runtime import telemetry

ResultT = TypeVar("ResultT")

OVER_BUDGET_S = 1.0
"""Wait of accepted work before a retry that the budget does not pay."""
RETRY_SHARE, RETRY_BURST = 0.2, 200.0
"""Retries for each task, and retries at once. The burst is for a node that dies with all its tasks."""
MIN_DEADLINE_S = 0.001
"""A node never gets less time than this: zero would mean no deadline on the wire."""

_in_flight = cache(telemetry.IN_FLIGHT.labels)
_retries = cache(telemetry.RETRIES.labels)


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """What one kind of task may use up."""

    attempts: int
    """Executions that may fail, the first one included."""
    is_patient: bool
    """True: an absence (see `gateway.endings`) is waited for until the deadline, and counts as no attempt."""


# A caller waits for the answer of a language model. A clip was accepted and is worth waiting for.
RETRY_LIMITS: Mapping[TaskKind, RetryLimits] = {
    TaskKind.LLM: RetryLimits(attempts=3, is_patient=False),
    TaskKind.VIDEO_DETECT: RetryLimits(attempts=6, is_patient=True),
    TaskKind.VIDEO_CLASSIFY: RetryLimits(attempts=6, is_patient=True),
}


class TaskRun(Protocol[ResultT]):
    """One task with its payload: what differs between the kinds."""

    @property
    def task(self) -> Task:
        """The task. Its `deadline_s` counts from `arrived_s`."""
        ...

    @property
    def arrived_s(self) -> float:
        """When the task began, on `time.monotonic`."""
        ...

    @property
    def subject(self) -> str:
        """What the task makes, for messages: "the answer", "segment 3"."""
        ...

    async def profile(self) -> TaskProfile:
        """Features of the task for its placement. A patient task asks again after an absence."""
        ...

    def placement_error(self, error: NoFeasibleArm) -> SkyshoreError:
        """The error that the caller gets when no arm can run the task."""
        ...

    async def prepare(self, placement: Placement, log: AttemptLog) -> None:
        """Make the payload fit the placed arm and set `log.up_bytes`. Errors are not tried again."""
        ...

    async def execute(self, node: WorkerClient, task: Task, placement: Placement, log: AttemptLog) -> ResultT:
        """Run the prepared payload on `node`.

        Args:
            node: client of the placed node.
            task: the task as the node gets it: its `deadline_s` counts from now.
            placement: the arm to use.
            log: where to add `down_bytes` and the node's figures.

        Returns:
            The result. An error after this is not tried again.
        """
        ...

    def set_next(self, next_result: Callable[[SkyshoreError], Awaitable[ResultT]]) -> None:
        """Called once, before `execute`. A run whose result breaks off later may ask `next_result` for another one.

        That call raises its argument, or a later error, if no attempt is left.
        """
        ...

    async def aclose(self) -> None:
        """Cancel what still runs on a node. Called once, at the end."""
        ...


class AttemptLoop:
    """Runs tasks on nodes and records their outcomes. Which errors it tries again: see `gateway.endings`."""

    def __init__(
        self,
        scheduler: SchedulerClient,
        workers: Callable[[str], WorkerClient],
        records: RecordWriter,
        joules_per_byte: JoulesPerByte,
        *,
        breakers: NodeBreakers | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        """`workers` gives the client for a node's address. Tests leave out breakers and budget."""
        self._scheduler, self._workers, self._records = scheduler, workers, records
        self._joules_per_byte = joules_per_byte
        self._breakers = breakers or NodeBreakers()
        self._budget = budget or RetryBudget(RETRY_SHARE, RETRY_BURST)

    @asynccontextmanager
    async def run(self, run: TaskRun[ResultT]) -> AsyncIterator[ResultT]:
        """Run a task. The deadline includes the `async with` block; leaving the block early cancels the task.

        Raises:
            DeadlineExceeded: `run.task.deadline_s` passed, counted from `run.arrived_s`.
            SkyshoreError: the last failure, or one that is not tried again.
        """
        log = AttemptLog(self._records, run.task, run.arrived_s, self._joules_per_byte)
        ending = COMPLETED
        attempts = _Attempts(self, run, log)
        run.set_next(attempts.after)
        try:
            with _in_flight(run.task.kind.value).track_inprogress():
                async with _deadline(run), aclosing(run):
                    yield await attempts.first()
        except BaseException as error:
            ending = ending_of(error)
            raise
        finally:
            log.close(ending)

    def node_failed(self, node_id: str) -> None:
        """A node broke off in the middle of an answer."""
        self._breakers.failed(node_id, time.monotonic())

    async def profile(self, run: TaskRun[ResultT], tried: Tried) -> TaskProfile:
        """Ask the run for its profile; a patient task waits for the profiler."""
        self._budget.add_task()
        while True:
            try:
                return await run.profile()
            except ABSENCES as error:
                await tried.wait(error)

    async def execute(self, run: TaskRun[ResultT], placement: Placement, log: AttemptLog) -> ResultT:
        """Run the task on its node, and tell the node's breaker how it went."""
        node_id = placement.arm.node_id
        if not self._breakers.begin(node_id, time.monotonic()):
            raise NodeUnavailable(f"node '{node_id}' has failed several tasks; ask again soon", retry_after_s=1.0)
        try:
            result = await run.execute(self._workers(placement.address), _as_seen_by_node(run), placement, log)
        except BaseException as error:
            if blames_node(error):
                self._breakers.failed(node_id, time.monotonic())
            else:
                self._breakers.said_nothing(node_id)
            raise
        self._breakers.succeeded(node_id)
        return result

    async def pay_retry(self, kind: TaskKind, tried: Tried, error: SkyshoreError) -> None:
        """Take the retry from the budget. If that is empty, a caller gets `error`, and accepted work waits a moment."""
        is_paid = self._budget.take()
        _retries(kind.value, "sent" if is_paid else "over_budget").inc()
        if is_paid:
            return
        if not tried.is_patient:
            raise error
        await asyncio.sleep(OVER_BUDGET_S)

    async def place(self, run: TaskRun[ResultT], profile: TaskProfile, attempt: int, tried: Tried) -> Placement:
        """Ask for an arm that neither failed this task nor has an open breaker."""
        while True:
            # Those that failed this task come last: of too many, the last ones count.
            avoid = list(dict.fromkeys([*self._breakers.shut(time.monotonic()), *tried.node_ids]))
            try:
                return await self._scheduler.place(run.task, profile, attempt=attempt, avoid=avoid)
            except NoFeasibleArm as error:
                # The clip was accepted because a node offered it (see `FleetView.check_offered`): it may come back.
                if not (tried.is_patient and error.param in ("kind", "model")):
                    raise run.placement_error(error) from error
                await tried.wait(error)
            except ABSENCES as error:
                await tried.wait(error)


class _Attempts(Generic[ResultT]):
    """The attempts of one task, up to its first result and, if that breaks off, to the next one."""

    def __init__(self, loop: AttemptLoop, run: TaskRun[ResultT], log: AttemptLog) -> None:
        self._loop, self._run, self._log = loop, run, log
        self._limits = RETRY_LIMITS[run.task.kind]
        self._tried = Tried(is_patient=self._limits.is_patient)
        self._profile = TaskProfile()
        self._numbers = count(1)

    async def first(self) -> ResultT:
        """The first result."""
        self._profile = await self._loop.profile(self._run, self._tried)
        return await self._next()

    async def after(self, error: SkyshoreError) -> ResultT:
        """Another result: the last one broke off with `error`."""
        self._loop.node_failed(self._log.node_id)
        await self._failed(self._log.node_id, error)
        return await self._next()

    async def _next(self) -> ResultT:
        run, log = self._run, self._log
        for attempt in self._numbers:
            placement = await self._loop.place(run, self._profile, attempt, self._tried)
            log.begin(placement)
            await run.prepare(placement, log)
            try:
                return await self._loop.execute(run, placement, log)
            except RETRIED as error:
                await self._failed(placement.arm.node_id, error)
        raise AssertionError("the loop has no end")

    async def _failed(self, node_id: str, error: SkyshoreError) -> None:
        """Count the failure. Raises it when no attempt is left."""
        self._tried.add(node_id, error)
        if self._tried.failures >= self._limits.attempts:
            raise error
        await self._loop.pay_retry(self._run.task.kind, self._tried, error)
        self._log.attempt_failed(error)


@asynccontextmanager
async def _deadline(run: TaskRun[Any]) -> AsyncIterator[None]:
    """Limit the block to the task's deadline. A TimeoutError of anything else passes unchanged."""
    deadline_s = run.task.deadline_s
    limit = asyncio.timeout(run.arrived_s + deadline_s - time.monotonic())
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"{run.subject} was not complete within {deadline_s:g} s; allow more time") from None


def _as_seen_by_node(run: TaskRun[Any]) -> Task:
    """The task as a node gets it: the clocks differ, so `deadline_s` counts from now instead of from the arrival."""
    left_s = run.arrived_s + run.task.deadline_s - time.monotonic()
    return replace(run.task, deadline_s=max(MIN_DEADLINE_S, left_s))
