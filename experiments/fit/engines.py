"""Language-model engines of one machine in virtual time, by themselves: no links, no scheduler, no deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from skyshore.nodemodel.engine import hindrance
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed


class SharedEngines:
    """Engines that slow each other down: each takes `1 + contention · (others at work)` times as long."""

    def __init__(self, speeds: Sequence[LlmSpeed], contention: float) -> None:
        self._speeds, self._contention = speeds, contention
        self._batches = [LlmBatch(speed) for speed in speeds]
        self._busy = [False] * len(speeds)
        self._factors = [1.0] * len(speeds)
        self._plans = [0] * len(speeds)
        self._turns = count()
        self._heap: list[tuple[float, int, int, Row | int]] = []
        self.ends_s: dict[Row, float] = {}
        """When each row was done."""

    def offer_at(self, time_s: float, engine: int, row: Row) -> None:
        """A row comes to an engine at a time."""
        heappush(self._heap, (time_s, next(self._turns), engine, row))

    def run(self) -> None:
        """Play everything to its end."""
        while self._heap:
            now_s, _, engine, what = heappop(self._heap)
            batch = self._batches[engine]
            if isinstance(what, Row):
                if not batch.offer(what):
                    continue
                if batch.running is None:
                    self._begin(engine, now_s)
                elif batch.joins_now():
                    self._shorten(engine, now_s)
            elif what == self._plans[engine]:
                finished = [row for row, _ in batch.end() if row.generated >= row.output_tokens]
                self._begin(engine, now_s)
                for row in finished:
                    self.ends_s[row] = now_s

    def _plan(self, engine: int, end_s: float) -> None:
        self._plans[engine] += 1
        heappush(self._heap, (end_s, next(self._turns), engine, self._plans[engine]))

    def _begin(self, engine: int, now_s: float) -> None:
        run = self._batches[engine].begin(now_s)
        if run is not None:
            self._plan(engine, run.end_s)
        if self._busy[engine] != (run is not None):
            self._busy[engine] = run is not None
            self._share(now_s)

    def _share(self, now_s: float) -> None:
        for engine, batch in enumerate(self._batches):
            factor = hindrance(self._contention, sum(self._busy) - self._busy[engine])
            if factor != self._factors[engine]:
                self._factors[engine] = factor
                batch.speed = self._speeds[engine].slowed(factor)
                self._shorten(engine, now_s)

    def _shorten(self, engine: int, now_s: float) -> None:
        batch = self._batches[engine]
        before = batch.running
        if before is not None and (run := batch.shorten(now_s)) is not None and run.count != before.count:
            self._plan(engine, run.end_s)
