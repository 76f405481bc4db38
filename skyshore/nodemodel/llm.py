"""The batch of one language-model engine as an object: what the emulated engine steps in real time.

Its rules are those of `skyshore.nodemodel.batching`, which the simulator runs in virtual time.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

from skyshore.nodemodel.batching import (
    begin_iterations,
    begin_or_shorten,
    end_iterations,
    joins_now,
    run_end_s,
    shorten,
)
from skyshore.nodemodel.engine import cancel, fill_engine, offer, set_pace
from skyshore.nodemodel.lines import members
from skyshore.nodemodel.records import ENGINE
from skyshore.nodemodel.speed import LlmSpeed
from skyshore.rules.records import NONE, rows


@dataclass(slots=True, eq=False)
class Row:
    """One request in the batch or waiting for it; see `ROW` for what the kernels keep in it."""

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
    chunk: int = 0
    cancelled: int = 0
    number: int = NONE


@dataclass(slots=True)
class Iterations:
    """A run of equal iterations: all that happens until something changes."""

    start_s: float
    each_s: float
    count: int
    end_s: float
    prefill_tokens: int


class LlmBatch:
    """The batch of one engine. Call `offer` for each request; `begin` and `end` a run of iterations."""

    def __init__(self, speed: LlmSpeed) -> None:
        self._speed = speed
        self._engine = rows(ENGINE, 1, arrays=False)[0]
        fill_engine(self._engine, speed)
        self._rows: dict[int, Row] = {}
        self._after: dict[int, int] = {}
        self._offered = 0
        self.running: Iterations | None = None
        """The open run."""
        self._leaving = [NONE] * speed.slots

    def __copy__(self) -> LlmBatch:
        """The same batch with rows of its own."""
        twin = LlmBatch(self._speed)
        twin._engine = copy(self._engine)
        for line in ("waiting", "working"):
            setattr(twin._engine, line, list(getattr(self._engine, line)))
        twin._rows = {number: copy(row) for number, row in self._rows.items()}
        twin._after, twin._offered, twin.running = dict(self._after), self._offered, self.running
        return twin

    @property
    def speed(self) -> LlmSpeed:
        """Its pace; another one of the same model counts from the next iteration on."""
        return self._speed

    @speed.setter
    def speed(self, speed: LlmSpeed) -> None:
        self._speed = speed
        set_pace(self._engine, speed)

    @property
    def rows(self) -> list[Row]:
        """Admitted, in order."""
        return [self._rows[number] for number in members(self._engine.working, self._after)]

    @property
    def waiting(self) -> list[Row]:
        """Not yet admitted, in order."""
        return [self._rows[number] for number in members(self._engine.waiting, self._after)]

    @property
    def kv_reserved(self) -> int:
        """KV tokens set aside."""
        return int(self._engine.kv_reserved)

    @property
    def busy_s(self) -> float:
        """Seconds spent in iterations that are over."""
        return float(self._engine.worked_s)

    def offer(self, row: Row) -> bool:
        """Queue a row. False when all room is taken or it can never fit the memory."""
        number = self._offered
        self._rows[number] = row
        if not offer(self._engine, self._rows, self._after, number):
            del self._rows[number]
            return False
        row.number = number
        self._offered += 1
        return True

    def cancel(self, row: Row) -> None:
        """Forget a row: at once while it waits or the batch rests, else when the running iteration ends."""
        if self._rows.get(row.number) is not row:
            return
        if not row.cancelled and not cancel(self._engine, self._rows, self._after, row.number, math.nan):
            del self._rows[row.number], self._after[row.number]

    def joins_now(self) -> bool:
        """See `joins_now`."""
        return joins_now(self._engine, self._rows)

    def begin(self, now_s: float, *, limit: int | None = None) -> Iterations | None:
        """See `begin_iterations`."""
        return self._note(begin_iterations(self._engine, self._rows, self._after, now_s, limit or 0))

    def shorten(self, now_s: float) -> Iterations | None:
        """See `shorten`."""
        return self._note(shorten(self._engine, now_s))

    def begin_or_shorten(self, now_s: float) -> Iterations | None:
        """See `begin_or_shorten`."""
        return self._note(begin_or_shorten(self._engine, self._rows, self._after, now_s))

    def end(self) -> list[tuple[Row, int]]:
        """Close the run: rows that got tokens and how many. Rows that are done have left the batch.

        Raises:
            RuntimeError: no run is open.
        """
        if self.running is None:
            raise RuntimeError("end() without begin()")
        self.running = None
        engine, rows = self._engine, self._rows
        before = [(row, row.generated) for row in self.rows]
        left = end_iterations(engine, rows, self._after, self._leaving) + engine.dropped
        for number in self._leaving[:left]:
            del rows[number], self._after[number]
        # Rows that were decoding come before those that got their first token.
        gained = [(row, row.generated - had) for row, had in before if row.generated > had > 0]
        return gained + [(row, 1) for row, had in before if row.generated > had == 0]

    def _note(self, changed: bool) -> Iterations | None:
        if changed:
            engine = self._engine
            self.running = Iterations(
                engine.run_start_s, engine.run_each_s, engine.run_count, run_end_s(engine), engine.run_prefills
            )
        return self.running
