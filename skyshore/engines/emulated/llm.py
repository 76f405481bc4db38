"""A language-model engine without a model: `nodemodel.LlmBatch` stepped by the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.engines.emulated.answer import EmulatedAnswer, draft
from skyshore.engines.emulated.pace import LastSecond, Pace
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed

SHORTEST_SLEEP_S = 0.001
"""Iterations shorter than this are run several at a time: the loop's timer is no finer."""


@dataclass(slots=True)
class _Stream:
    """Tokens that are due and not yet sent. It is a count, so a slow reader needs no memory."""

    due: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class EmulatedLlmEngine:
    """Serves one model of a profile. Use `start`; `close` ends the stepping task."""

    def __init__(self, speed: LlmSpeed, pace: Pace, mean_answer_tokens: float) -> None:
        self.model = speed.model
        self._speed, self._pace, self._mean = speed, pace, mean_answer_tokens
        self._batch = LlmBatch(speed)
        self._streams: dict[Row, _Stream] = {}
        self._arrived = asyncio.Event()
        self._last_second = LastSecond()
        self._stepping: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, speed: LlmSpeed, *, time_scale: float = 1.0, mean_answer_tokens: float = 128.0
    ) -> EmulatedLlmEngine:
        """Start the stepping task. `time_scale` model seconds pass in one real second."""
        engine = cls(speed, Pace(time_scale), mean_answer_tokens)
        engine._stepping = asyncio.create_task(engine._step_forever(), name=f"emulated {speed.model}")
        return engine

    async def generate(self, task: Task, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """See `LlmEngine`. Durations in the outcome are real seconds."""
        answer = draft(task.task_id, request, self._speed.context_tokens, self._mean)
        if self._speed.instant:
            yield _last_chunk(answer, 0)
            yield WorkerOutcome(prompt_tokens=answer.prompt_tokens, output_tokens=len(answer.tokens))
            return
        deadline = asyncio.get_running_loop().time() + task.deadline_s
        row = self._admit(task, answer)
        stream = self._streams[row] = _Stream()
        self._arrived.set()
        begin = sent = 0
        total = len(answer.tokens)
        try:
            while sent < total:
                await self._wait(stream, deadline, task)
                begin, sent = sent, sent + stream.due
                stream.due = 0
                if sent < total:
                    yield TokenChunk("".join(answer.tokens[begin:sent]), sent - begin)
            yield _last_chunk(answer, begin)
            yield self._outcome(row, answer)
        finally:
            del self._streams[row]
            self._batch.cancel(row)

    def load(self) -> EngineLoad:
        """See `LlmEngine`."""
        batch, speed = self._batch, self._speed
        mean_rows, tokens_per_s = self._last_second.read(self._pace.now_s() / self._pace.scale)
        return EngineLoad(
            running=len(batch.rows),
            queued=len(batch.waiting),
            capacity=speed.slots + speed.queue,
            kv_used=batch.kv_reserved / speed.kv_tokens,
            decode_batch=mean_rows,
            tokens_per_s=tokens_per_s,
        )

    def busy_joules(self) -> float:
        """Joules above idle so far, in model time."""
        return self._speed.busy_watts * self._batch.busy_s

    def drift(self, slowdown: float) -> None:
        """New iterations take `factor` times as long; the arm's stated speed does not change."""
        self._batch.speed = self._speed.slowed(slowdown)

    async def close(self) -> None:
        """See `LlmEngine`."""
        if self._stepping is not None:
            self._stepping.cancel()
            await asyncio.wait([self._stepping])
            if not self._stepping.cancelled():
                self._stepping.result()

    def _admit(self, task: Task, answer: EmulatedAnswer) -> Row:
        reserved = answer.prompt_tokens + answer.longest
        row = Row(task.task_id, answer.prompt_tokens, len(answer.tokens), reserved, self._pace.now_s())
        if not self._batch.offer(row):
            waits = len(self._batch.waiting)
            raise QueueFull(f"{self.model} has {waits} tasks waiting and no room; try later", retry_after_s=1.0)
        return row

    async def _wait(self, stream: _Stream, deadline: float, task: Task) -> None:
        if not stream.due:
            stream.moved.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await stream.moved.wait()
            except TimeoutError:
                raise DeadlineExceeded(f"the answer was not complete after {task.deadline_s:g} s") from None

    async def _step_forever(self) -> None:
        batch, pace = self._batch, self._pace
        each_s = self._speed.iteration_time_s(0, 1)
        limit = max(1, round(SHORTEST_SLEEP_S * pace.scale / each_s)) if each_s else 1
        model_s = pace.now_s()
        while True:
            run = batch.begin(model_s, limit=limit)
            if run is None:
                self._arrived.clear()
                await self._arrived.wait()
                model_s = pace.now_s()
                continue
            await pace.until(run.end_s)
            # The next run starts where this one ended in model time, so timer delays do not add up.
            model_s = run.end_s
            tokens = 0
            for row, count in batch.end():
                tokens += count
                if (stream := self._streams.get(row)) is not None:
                    stream.due += count
                    stream.moved.set()
            self._last_second.add(model_s / pace.scale, run.count, tokens, tokens)

    def _outcome(self, row: Row, answer: EmulatedAnswer) -> WorkerOutcome:
        scale, end_s = self._pace.scale, self._pace.now_s()
        return WorkerOutcome(
            queue_s=max(0.0, row.admitted_s - row.arrived_s) / scale,
            prefill_s=max(0.0, row.first_token_s - row.admitted_s) / scale,
            compute_s=max(0.0, end_s - row.first_token_s) / scale,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=len(answer.tokens),
        )


def _last_chunk(answer: EmulatedAnswer, begin: int) -> TokenChunk:
    return TokenChunk(
        "".join(answer.tokens[begin:]),
        len(answer.tokens) - begin,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
    )
