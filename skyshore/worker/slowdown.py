"""Slows a real engine down by a factor, to emulate unequal nodes on one machine. Reports call such a node emulated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TypeVar, cast

from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import Classification, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.ports import ClipClassifierEngine, LlmEngine, VideoEngine

Event = TypeVar("Event", TokenChunk, FrameDetections, Classification)


class _Slowdown:
    """Holds a slot for the longer time, so that the throughput falls by the same factor."""

    def __init__(self, engine: LlmEngine | VideoEngine | ClipClassifierEngine, factor: float, slots: int) -> None:
        self.model = engine.model
        self._engine, self._factor = engine, factor
        self._slots, self._capacity = asyncio.Semaphore(slots), engine.load().capacity
        self._open = self._waiting = 0

    def load(self) -> EngineLoad:
        """The load of the engine plus the tasks that wait here."""
        load = self._engine.load()
        return replace(load, queued=load.queued + self._waiting)

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()

    async def _stretch(
        self, task: Task, events: AsyncGenerator[Event | WorkerOutcome]
    ) -> AsyncGenerator[Event | WorkerOutcome]:
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        end_s = arrived_s + task.deadline_s
        async with self._slot(end_s, task):
            began_s = loop.time()
            async with _read_ahead(events) as arrivals:
                while (entry := await arrivals.get()) is not None:
                    arrived_at_s, event = entry
                    due_s = began_s + (arrived_at_s - began_s) * self._factor
                    await asyncio.sleep(max(0.0, min(due_s, end_s) - loop.time()))
                    if due_s > end_s:
                        raise DeadlineExceeded(f"the answer was not complete after {task.deadline_s:g} s")
                    if isinstance(event, Exception):
                        raise event
                    yield self._stretched(event, began_s - arrived_s) if isinstance(event, WorkerOutcome) else event

    @asynccontextmanager
    async def _slot(self, end_s: float, task: Task) -> AsyncIterator[None]:
        if self._open >= self._capacity:
            raise QueueFull(f"{self.model} has no room for another task; try later", retry_after_s=1.0)
        self._open += 1
        try:
            await self._wait_for_slot(end_s, task)
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._open -= 1

    async def _wait_for_slot(self, end_s: float, task: Task) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout_at(end_s):
                await self._slots.acquire()
        except TimeoutError:
            raise DeadlineExceeded(f"the task waited for a slot for {task.deadline_s:g} s") from None
        finally:
            self._waiting -= 1

    def _stretched(self, outcome: WorkerOutcome, waited_s: float) -> WorkerOutcome:
        return replace(
            outcome,
            queue_s=waited_s + outcome.queue_s * self._factor,
            prefill_s=outcome.prefill_s * self._factor,
            compute_s=outcome.compute_s * self._factor,
        )


@asynccontextmanager
async def _read_ahead(
    events: AsyncGenerator[Event | WorkerOutcome],
) -> AsyncIterator[asyncio.Queue[tuple[float, Event | WorkerOutcome | Exception] | None]]:
    """Read events as soon as the engine has them, each with its time: the engine must not wait for our delays.

    The queue holds at most one answer, so it needs no limit.
    """
    loop = asyncio.get_running_loop()
    arrivals: asyncio.Queue[tuple[float, Event | WorkerOutcome | Exception] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    arrivals.put_nowait((loop.time(), event))
        except Exception as error:  # raised to the caller after the events before it
            arrivals.put_nowait((loop.time(), error))
        arrivals.put_nowait(None)

    reading = asyncio.create_task(read(), name="slowed engine")
    try:
        yield arrivals
    finally:
        reading.cancel()
        await asyncio.wait([reading])


class SlowedLlmEngine(_Slowdown):
    """An LlmEngine `factor` times slower."""

    _engine: LlmEngine

    def generate(self, task: Task, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """See `LlmEngine`."""
        events = self._engine.generate(task, request)
        return self._stretch(task, cast("AsyncGenerator[TokenChunk | WorkerOutcome]", events))


class SlowedVideoEngine(_Slowdown):
    """A VideoEngine `factor` times slower."""

    _engine: VideoEngine

    def detect(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[FrameDetections | WorkerOutcome]:
        """See `VideoEngine`."""
        events = self._engine.detect(task, info, frames)
        return self._stretch(task, cast("AsyncGenerator[FrameDetections | WorkerOutcome]", events))


class SlowedClipClassifier(_Slowdown):
    """A ClipClassifierEngine `factor` times slower."""

    _engine: ClipClassifierEngine

    def classify(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[Classification | WorkerOutcome]:
        """See `ClipClassifierEngine`."""
        events = self._engine.classify(task, info, frames)
        return self._stretch(task, cast("AsyncGenerator[Classification | WorkerOutcome]", events))
