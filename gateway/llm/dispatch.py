"""Profile, place, execute: the way of one LLM task, with another node tried when one fails before its first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

from gateway.attempt_log import JoulesPerByte, Ledger, status_of
from gateway.records import RecordWriter
from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    NodeUnavailable,
    NoFeasibleArm,
    NotFound,
    PromptTooLong,
    QueueFull,
    SkyshoreError,
)
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.outcome import OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.links.framing import REPLY_BYTES, REQUEST_BYTES, TOKEN_BYTES
from skyshore.ports import ProfilerClient, SchedulerClient, WorkerClient
from skyshore.runtime import telemetry

MAX_ATTEMPTS = 3
RETRIED = (NodeUnavailable, QueueFull)
"""Failures of one node that another may not share."""

_IN_FLIGHT = telemetry.IN_FLIGHT.labels(TaskKind.LLM.value)


class Events(Protocol):
    """What a node says of a task; closed when left early."""

    async def __anext__(self) -> TokenChunk | WorkerOutcome:
        """The next event."""
        ...

    async def aclose(self) -> None:
        """Cancel the work."""
        ...


@dataclass(frozen=True, slots=True)
class LlmJob:
    """A task with its payload, as it came in."""

    task: Task
    request: LlmInput
    arrived_s: float
    """On `time.monotonic`."""
    fit_to_context: bool
    """Shrink the bound on the answer to what the model's context leaves, because the caller named none."""


class Answer:
    """An answer whose first event has arrived: iterate over its tokens; then `worker` holds the node's figures."""

    def __init__(self, placement: Placement, ledger: Ledger, first: TokenChunk | WorkerOutcome, events: Events) -> None:
        self.placement = placement
        self.overhead_s = ledger.overhead_s
        self._ledger, self._events = ledger, events
        self._first: TokenChunk | WorkerOutcome | None = first

    @property
    def worker(self) -> WorkerOutcome:
        """What the node measured."""
        return self._ledger.worker

    def costs(self) -> dict[str, float | str]:
        """What the answer took."""
        return self._ledger.costs()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next tokens. Raises what the node raises: it is too late for another one."""
        event, self._first = self._first, None
        if event is None:
            event = await _next(self._events, self.placement)
        if isinstance(event, TokenChunk):
            self._ledger.down_bytes += TOKEN_BYTES + len(event.text.encode())
            return event
        self._ledger.worker = event
        self._ledger.down_bytes += REPLY_BYTES
        raise StopAsyncIteration


class Dispatcher:
    """Finds the node for a task and sees it through."""

    def __init__(
        self,
        profiler: ProfilerClient,
        scheduler: SchedulerClient,
        workers: Callable[[str], WorkerClient],
        records: RecordWriter,
        price: JoulesPerByte,
    ) -> None:
        """`workers` gives the client for a node's address."""
        self._profiler, self._scheduler, self._workers, self._records = profiler, scheduler, workers, records
        self._price = price

    @asynccontextmanager
    async def answer(self, job: LlmJob) -> AsyncIterator[Answer]:
        """Start a task. Leaving the block early cancels the work on the node; the deadline holds in the block too.

        Raises:
            SkyshoreError: whatever ended the task.
        """
        ledger = Ledger(self._records, job.task, job.arrived_s, self._price)
        used_s = time.monotonic() - job.arrived_s
        status, message, code = OutcomeStatus.CANCELLED, "the caller went away", ""
        try:
            with _IN_FLIGHT.track_inprogress():
                async with asyncio.timeout(job.task.deadline_s - used_s) as limit:
                    placement, first, events = await self._first_event(job, ledger)
                    async with aclosing(events):
                        yield Answer(placement, ledger, first, events)
            status, message = OutcomeStatus.OK, ""
        except TimeoutError:
            if not limit.expired():
                status, message, code = OutcomeStatus.FAILED, "TimeoutError", Internal.code
                raise
            error = DeadlineExceeded(f"no whole answer within {job.task.deadline_s:g} s; allow more time")
            status, message, code = OutcomeStatus.DEADLINE_EXCEEDED, error.message, error.code
            raise error from None
        except SkyshoreError as error:
            status, message, code = status_of(error), error.message, error.code
            raise
        except Exception as error:
            status, message, code = OutcomeStatus.FAILED, type(error).__name__, Internal.code
            raise
        finally:
            ledger.record(ledger.close(status, message), code)

    async def _first_event(self, job: LlmJob, ledger: Ledger) -> tuple[Placement, TokenChunk | WorkerOutcome, Events]:
        profile = await self._profiler.profile_llm(job.task, job.request)
        ledger.up_bytes = REQUEST_BYTES + profile.input_bytes
        avoid: list[str] = []
        failure: SkyshoreError | None = None
        while True:
            placement = await self._place(job.task, profile, avoid, failure)
            left_s = job.task.deadline_s - ledger.begin(placement)
            request = _fit(job, placement, profile)
            task = replace(job.task, deadline_s=max(0.001, left_s))
            worker = self._workers(placement.address)
            events = cast(Events, worker.execute(task, placement.arm.arm_id, request))
            try:
                first = await _next(events, placement)
            except RETRIED as error:
                if placement.attempt >= MAX_ATTEMPTS:
                    raise
                ledger.attempt_failed(error)
                avoid.append(placement.arm.node_id)
                failure = error
            else:
                ledger.first_token()
                return placement, first, events

    async def _place(
        self, task: Task, profile: TaskProfile, avoid: list[str], failure: SkyshoreError | None
    ) -> Placement:
        try:
            return await self._scheduler.place(task, profile, attempt=len(avoid) + 1, avoid=avoid)
        except NoFeasibleArm as error:
            raise _as_callers_mistake(error) from error
        except RETRIED as error:
            # Nobody is left to try: what the last node said tells the caller more than that.
            raise failure or error from error


async def _next(events: Events, placement: Placement) -> TokenChunk | WorkerOutcome:
    try:
        return await events.__anext__()
    except StopAsyncIteration:
        raise Internal(f"node '{placement.arm.node_id}' ended the answer without an outcome") from None


def _as_callers_mistake(error: NoFeasibleArm) -> SkyshoreError:
    """Two of the reasons why no arm fits have names that OpenAI's clients know."""
    if error.param == "model":
        return NotFound(error.message, param="model")
    if error.param == "prompt":
        return PromptTooLong(error.message, param="messages")
    return error


def _fit(job: LlmJob, placement: Placement, profile: TaskProfile) -> LlmInput:
    """Hold the bound on the answer to the model's context. Raises PromptTooLong."""
    request, context_tokens = job.request, placement.arm.context_tokens
    room = context_tokens - profile.prompt_tokens
    if not context_tokens or request.sampling.max_tokens <= room:
        return request
    if room < 1 or not job.fit_to_context:
        raise PromptTooLong(
            f"prompt ({profile.prompt_tokens} tokens) and max_tokens ({request.sampling.max_tokens}) are over the "
            f"context of '{placement.arm.model}' ({context_tokens}); shorten the prompt or ask for less",
            param="max_tokens",
        )
    return replace(request, sampling=replace(request.sampling, max_tokens=room))
