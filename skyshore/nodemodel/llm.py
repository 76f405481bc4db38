"""Continuous batching as a state machine over model time: admit, prefill in chunks, decode, finish.

The emulated engine steps it in real time, the simulator in virtual time. Nothing here knows which. Chunks share an
iteration with the rows, or the two take turns as in `skyshore/engines/llm` (`LlmSpeed.stall_ratio`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from skyshore.nodemodel.speed import LlmSpeed
from skyshore.nodemodel.turns import chunks


@dataclass(slots=True, eq=False)
class Row:
    """One request in the batch or waiting for it."""

    key: str
    prompt_tokens: int
    output_tokens: int
    """Tokens it will generate."""
    reserved_tokens: int
    """KV tokens set aside from admission to the end: prompt plus the longest answer allowed."""
    arrived_s: float
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    prefilled: int = 0
    generated: int = 0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Iterations:
    """A run of equal iterations: all that happens until something changes."""

    start_s: float
    each_s: float
    count: int
    chunk: tuple[tuple[Row, int], ...]
    """Rows being prefilled and the prompt tokens each takes; then `count` is 1."""
    decodes: bool = True
    """Whether every other row gets a token of each."""

    @property
    def end_s(self) -> float:
        """When the last of them is over."""
        return self.start_s + self.each_s * self.count


class LlmBatch:
    """The batch of one engine. One tells it of offers and asks it to `begin`, then `end`, a run of iterations."""

    def __init__(self, speed: LlmSpeed) -> None:
        self.speed = speed
        self.waiting: deque[Row] = deque()
        self.rows: list[Row] = []
        self.kv_reserved = 0
        self.busy_s = 0.0
        """Seconds spent in iterations so far."""
        self.running: Iterations | None = None
        self._prefilled_last = False
        """Whether it is the rows' turn."""

    @property
    def full(self) -> bool:
        """Whether one more offer would be refused."""
        return len(self.rows) + len(self.waiting) >= self.speed.slots + self.speed.queue

    def offer(self, row: Row) -> bool:
        """Queue a row. False when all room is taken or it can never fit the memory."""
        if self.full or row.reserved_tokens > self.speed.kv_tokens:
            return False
        self.waiting.append(row)
        return True

    def cancel(self, row: Row) -> None:
        """Forget a row: at once while it waits or the batch rests, else when the running iteration ends."""
        if row in self.waiting:
            self.waiting.remove(row)
        elif row in self.rows:
            row.cancelled = True
            if self.running is None:
                self._leave(row)

    def joins_now(self) -> bool:
        """Whether the next waiting row would be admitted if the running iterations ended."""
        return bool(self.waiting) and self._fits(self.waiting[0])

    def busy_until(self, now_s: float) -> float:
        """Seconds spent in iterations by then, those of the open run included."""
        run = self.running
        return self.busy_s + (min(now_s, run.end_s) - run.start_s if run is not None else 0.0)

    def begin(self, now_s: float, *, limit: int | None = None) -> Iterations | None:
        """Admit what fits and plan the longest run without a change, at most `limit` iterations long."""
        while self.waiting and self._fits(self.waiting[0]):
            row = self.waiting.popleft()
            row.admitted_s = now_s
            self.kv_reserved += row.reserved_tokens
            self.rows.append(row)
        if not self.rows:
            return None
        self.running = self._plan(now_s, limit)
        return self.running

    def shorten(self, now_s: float) -> Iterations | None:
        """Cut the run at the first iteration boundary not before `now_s`, so that a newcomer can join there."""
        run = self.running
        if run is None or run.count == 1:
            return run
        # The slack keeps a boundary that lies at now_s up to rounding from costing one iteration more.
        count = min(run.count, max(1, math.ceil((now_s - run.start_s) / run.each_s - 1e-9)))
        self.running = Iterations(run.start_s, run.each_s, count, run.chunk, run.decodes)
        return self.running

    def end(self) -> list[tuple[Row, int]]:
        """Close the run: rows that got tokens and how many. Rows that are done have left the batch.

        Raises:
            RuntimeError: no run is open.
        """
        run = self.running
        if run is None:
            raise RuntimeError("end() without begin()")
        self.running = None
        self.busy_s += run.each_s * run.count
        progress: list[tuple[Row, int]] = []
        for row in [row for row in self.rows if row.cancelled]:
            self._leave(row)
        for row in self.rows if run.decodes else ():
            if row.prefilled == row.prompt_tokens:
                row.generated += run.count
                progress.append((row, run.count))
        for row, tokens in run.chunk:
            if row.cancelled:
                continue
            row.prefilled += tokens
            if row.prefilled == row.prompt_tokens:
                # The logits of the prompt's last token give the first one of the answer.
                row.generated, row.first_token_s = 1, run.end_s
                progress.append((row, 1))
        for row, _ in progress:
            if row.generated >= row.output_tokens:
                self._leave(row)
        return progress

    def _fits(self, row: Row) -> bool:
        return len(self.rows) < self.speed.slots and self.kv_reserved + row.reserved_tokens <= self.speed.kv_tokens

    def _leave(self, row: Row) -> None:
        self.rows.remove(row)
        self.kv_reserved -= row.reserved_tokens

    def _plan(self, now_s: float, limit: int | None) -> Iterations:
        if self.speed.stall_ratio:
            return self._plan_turn(now_s, limit)
        room, decoding, shortest = self.speed.chunk_tokens, 0, math.inf
        chunk: list[tuple[Row, int]] = []
        for row in self.rows:
            left = row.prompt_tokens - row.prefilled
            if left:
                if room:
                    take = min(room, left)
                    room -= take
                    chunk.append((row, take))
            else:
                decoding += 1
                shortest = min(shortest, row.output_tokens - row.generated)
        prefill = self.speed.chunk_tokens - room
        count = 1 if chunk else int(shortest)
        if limit is not None:
            count = min(count, limit)
        return Iterations(now_s, self.speed.iteration_time_s(prefill, decoding), count, tuple(chunk))

    def _plan_turn(self, now_s: float, limit: int | None) -> Iterations:
        """A chunk of the prompts, or tokens for the rows, whoever's turn it is."""
        prompts = [row for row in self.rows if row.prefilled < row.prompt_tokens]
        decoding = [row for row in self.rows if row.prefilled == row.prompt_tokens]
        self._prefilled_last = bool(prompts) and not (self._prefilled_last and decoding)
        if not self._prefilled_last:
            count = 1 if prompts else min(row.output_tokens - row.generated for row in decoding)
            if limit is not None:
                count = min(count, limit)
            return Iterations(now_s, self.speed.iteration_time_s(0, len(decoding)), count, ())
        budget_tokens = self.speed.chunk_limit(len(prompts), len(decoding))
        shares = chunks((row.prompt_tokens - row.prefilled for row in prompts), budget_tokens)
        chunk = tuple(zip(prompts, shares, strict=False))
        each_s = self.speed.iteration_time_s(sum(tokens for _, tokens in chunk), 0)
        return Iterations(now_s, each_s, 1, chunk, decodes=False)
