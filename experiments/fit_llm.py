"""Finds the iteration times of continuously batching engines from the times of their requests.

An iteration takes `iteration_s + p * prefill_token_s + r * row_s` (see `LlmSpeed`), but nobody saw the iterations: only
when each request came, gave its first token and ended. So the requests are played through the very state machines that
the simulator runs, and the figures are moved until its times are those that were seen (Levenberg 1944). Engines of one
machine are played together: how much they hold each other up is one figure more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.outcome_table import OutcomeRow
from skyshore.nodemodel.engine import hindrance
from skyshore.nodemodel.llm import Iterations, LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed

Floats = NDArray[np.float64]

FLOOR_S = 0.02
"""Errors count relative to what was seen, but not below this: timers and schedulers blur what is shorter."""
SMALLEST_S = 1e-7
STEPS = (0.1, 0.02)
"""Of a figure, to see what it does to the times: batches change in leaps, so a glance afar comes first."""
ROUNDS = 30
STEEPEST, GENTLEST = 1e6, 1e-6
"""Bounds of the damping."""
ENOUGH = 1e-5
"""Share by which the error must still fall for another round."""
ROW_MULTIPLES = (1, 2)
"""Paddings of a decode run that are tried (`LlmSpeed.row_multiple`)."""
FIRST_CONTENTIONS = (0.05, 0.5)
"""Where to begin: from one alone, a slow row may be taken for a busy neighbour."""
FIGURES = 3
"""Of one engine."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Requests in order of arrival; [n] each."""

    arrived_s: Floats
    prompt: Sequence[int]
    output: Sequence[int]
    first_s: Floats
    """From there to the first token, queue included: an engine may say otherwise when a request began."""
    compute_s: Floats

    @classmethod
    def of(cls, rows: Sequence[OutcomeRow]) -> _Seen:
        rows = sorted((row for row in rows if row.output_tokens > 0 and row.prompt_tokens > 0), key=_arrived_s)
        return cls(
            arrived_s=np.array([_arrived_s(row) for row in rows]),
            prompt=[row.prompt_tokens for row in rows],
            output=[row.output_tokens for row in rows],
            first_s=np.array([row.queue_s + row.prefill_s for row in rows]),
            compute_s=np.array([row.compute_s for row in rows]),
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """The engines of a run as found."""

    speeds: tuple[LlmSpeed, ...]
    contention: float
    """See `Calibration`."""


def fit_engines(rows: Sequence[Sequence[OutcomeRow]], stated: Sequence[LlmSpeed]) -> Fitted:
    """Each engine's `stated` with the times that explain its `rows` best; slots, turns and memory are as stated."""
    seen = [_Seen.of(some) for some in rows]
    contentions = [(first,) for first in FIRST_CONTENTIONS] if len(seen) > 1 else [()]
    found = [
        _fit(seen, [replace(each, row_multiple=multiple) for each in stated], contention)
        for multiple in ROW_MULTIPLES
        for contention in contentions
    ]
    return min(found, key=lambda each: each[1])[0]


def _fit(seen: Sequence[_Seen], stated: Sequence[LlmSpeed], contention: Sequence[float]) -> tuple[Fitted, float]:
    logs = np.log([*(figure for each in seen for figure in _first_guess(each)), *contention])
    errors = _errors(seen, _at(stated, logs))
    for step in STEPS:
        logs, errors = _descend(seen, stated, logs, errors, step)
    return _at(stated, logs), _cost(errors)


def _descend(
    seen: Sequence[_Seen], stated: Sequence[LlmSpeed], logs: Floats, errors: Floats, step: float
) -> tuple[Floats, Floats]:
    damping = 1e-2
    for _ in range(ROUNDS):
        moves = step * np.eye(len(logs))
        slopes = np.stack([_errors(seen, _at(stated, logs + move)) - errors for move in moves], axis=1) / step
        fell = 0.0
        while damping < STEEPEST:
            square = slopes.T @ slopes
            move = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-9), -slopes.T @ errors)
            moved = logs + np.clip(move, -1.0, 1.0)
            tried = _errors(seen, _at(stated, moved))
            fell = 1 - _cost(tried) / max(_cost(errors), 1e-12)
            if fell > 0:
                logs, errors, damping = moved, tried, max(damping / 5, GENTLEST)
                break
            damping *= 4
        if fell < ENOUGH:
            break
    return logs, errors


def _errors(seen: Sequence[_Seen], fitted: Fitted) -> Floats:
    """[2n]: relative errors of first tokens and decodings when the engines were so fast."""
    found = []
    for each, (first_s, compute_s) in zip(seen, _played(seen, fitted), strict=True):
        found.append((first_s - each.first_s) / np.maximum(each.first_s, FLOOR_S))
        found.append((compute_s - each.compute_s) / np.maximum(each.compute_s, FLOOR_S))
    return np.concatenate(found)


def _cost(errors: Floats) -> float:
    """Squares for small errors, straight for large ones: one request that was held up must not bend the model."""
    size = np.abs(errors)
    return float(np.where(size < 0.1, size * size, 0.2 * size - 0.01).sum())


def _at(stated: Sequence[LlmSpeed], logs: Floats) -> Fitted:
    figures = [float(value) for value in np.exp(np.clip(logs, math.log(SMALLEST_S), 5.0))]
    speeds = tuple(
        replace(each, iteration_s=figures[at], prefill_token_s=figures[at + 1], row_s=figures[at + 2])
        for at, each in zip(range(0, len(figures), FIGURES), stated, strict=False)
    )
    return Fitted(speeds, figures[-1] if len(stated) > 1 else 0.0)


def _first_guess(seen: _Seen) -> list[float]:
    """Half of the fastest token for the iteration, the rest shared out: good enough to begin with."""
    steps = np.maximum(np.array(seen.output) - 1, 1)
    fastest_s = max(float(np.percentile(seen.compute_s / steps, 5)), SMALLEST_S)
    per_token_s = float(np.median(seen.first_s / np.array(seen.prompt)))
    return [0.7 * fastest_s, max(0.5 * per_token_s, SMALLEST_S), max(0.15 * fastest_s, SMALLEST_S)]


def _played(seen: Sequence[_Seen], fitted: Fitted) -> list[tuple[Floats, Floats]]:
    """Seconds to the first token and of decoding for every request, had it come when it did."""
    # Nobody is turned away: each of them was answered.
    machine = _Machine(
        [replace(speed, queue=len(each.output)) for each, speed in zip(seen, fitted.speeds, strict=True)]
    )
    engines = [
        [
            Row("", prompt, output, min(prompt + output, speed.kv_tokens), float(at_s))
            for at_s, prompt, output in zip(each.arrived_s, each.prompt, each.output, strict=True)
        ]
        for each, speed in zip(seen, fitted.speeds, strict=True)
    ]
    ends = machine.play([(number, row) for number, rows in enumerate(engines) for row in rows], fitted.contention)
    return [
        (
            np.array([row.first_token_s - row.arrived_s for row in rows]),
            np.array([ends[row] - row.first_token_s for row in rows]),
        )
        for rows in engines
    ]


class _Machine:
    """Engines that hold each other up."""

    def __init__(self, speeds: Sequence[LlmSpeed]) -> None:
        self._speeds = speeds
        self._batches = [LlmBatch(speed) for speed in speeds]
        self._factors = [1.0] * len(speeds)
        self._turn = 0

    def play(self, offers: Sequence[tuple[int, Row]], contention: float) -> dict[Row, float]:
        """Offer each row to its engine when it comes; returns when each row was done."""
        coming = deque(sorted(offers, key=lambda offer: offer[1].arrived_s))
        now_s, ends, planned = 0.0, dict[Row, float](), dict[int, tuple[Iterations, int]]()
        while coming or planned:
            # Of what is due at the same time, arrivals come first, then runs in the order in which they were planned.
            due = [(max(run.end_s, now_s), turn, number) for number, (run, turn) in planned.items()]
            if coming and (not due or coming[0][1].arrived_s <= min(due)[0]):
                number, row = coming.popleft()
                now_s = max(row.arrived_s, now_s)
                if self._batches[number].offer(row):
                    self._batches[number].begin_or_shorten(now_s)
            else:
                now_s, _, number = min(due)
                done = [row for row, _ in self._batches[number].end() if row.generated >= row.output_tokens]
                self._batches[number].begin(now_s)
                ends |= dict.fromkeys(done, now_s)
            self._share(now_s, contention)
            self._note(planned, number)
        return ends

    def _share(self, now_s: float, contention: float) -> None:
        busy = sum(batch.running is not None for batch in self._batches)
        for number, batch in enumerate(self._batches):
            factor = hindrance(contention, busy - (batch.running is not None))
            if factor != self._factors[number]:
                self._factors[number] = factor
                batch.speed = self._speeds[number].slowed(factor)
                batch.shorten(now_s)

    def _note(self, planned: dict[int, tuple[Iterations, int]], first: int) -> None:
        """Give a turn to every run whose end is new, to that of engine `first` before the others."""
        for number in (first, *range(len(self._batches))):
            run = self._batches[number].running
            if run is None:
                planned.pop(number, None)
            elif number not in planned or planned[number][0] is not run:
                self._turn += 1
                planned[number] = run, self._turn


def _arrived_s(row: OutcomeRow) -> float:
    """At the engine, but for the way back of the answer, which is the same for all."""
    return row.t_intended_s + (row.latency_s or 0.0) - row.compute_s - row.prefill_s - row.queue_s
