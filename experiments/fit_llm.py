"""Finds the iteration time of a continuously batching engine from the times of its requests.

An iteration takes `iteration_s + p * prefill_token_s + r * row_s` (see `LlmSpeed`), but nobody saw the iterations: only
when each request came, began, gave its first token and ended. So the requests are played through the very state machine
that the simulator runs, and the three figures are moved until its times are those that were seen (Levenberg 1944).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.outcome_table import OutcomeRow
from simulator.servers import LlmServer
from simulator.timeline import Timeline
from skyshore.nodemodel.llm import Row
from skyshore.nodemodel.speed import LlmSpeed

Floats = NDArray[np.float64]

FLOOR_S = 0.02
"""Errors count relative to what was seen, but not below this: timers and schedulers blur what is shorter."""
SMALLEST_S = 1e-7
STEP = 0.02
"""Of a figure, to see what it does to the times."""
ROUNDS = 30
STEEPEST, GENTLEST = 1e6, 1e-6
"""Bounds of the damping."""
ENOUGH = 1e-5
"""Share by which the error must still fall for another round."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Requests in order of arrival; [n] each."""

    arrived_s: Floats
    prompt: Sequence[int]
    output: Sequence[int]
    prefill_s: Floats
    compute_s: Floats

    @classmethod
    def of(cls, rows: Sequence[OutcomeRow]) -> _Seen:
        rows = sorted(rows, key=_arrived_s)
        return cls(
            arrived_s=np.array([_arrived_s(row) for row in rows]),
            prompt=[row.prompt_tokens for row in rows],
            output=[row.output_tokens for row in rows],
            prefill_s=np.array([row.prefill_s for row in rows]),
            compute_s=np.array([row.compute_s for row in rows]),
        )

    def errors(self, speed: LlmSpeed) -> Floats:
        """[2n]: relative errors of prefills and decodings when the engine were so fast."""
        prefill_s, compute_s = _played(self, speed)
        return np.concatenate(
            [
                (prefill_s - self.prefill_s) / np.maximum(self.prefill_s, FLOOR_S),
                (compute_s - self.compute_s) / np.maximum(self.compute_s, FLOOR_S),
            ]
        )


def fit_llm(rows: Sequence[OutcomeRow], stated: LlmSpeed) -> LlmSpeed:
    """`stated` with the times that explain `rows` best; slots, chunk and memory are taken as stated."""
    seen = _Seen.of([row for row in rows if row.output_tokens > 0 and row.prompt_tokens > 0])
    logs = np.log(_first_guess(seen))
    errors = seen.errors(_at(stated, logs))
    damping = 1e-2
    for _ in range(ROUNDS):
        slopes = np.stack([seen.errors(_at(stated, logs + step)) - errors for step in STEP * np.eye(3)], axis=1) / STEP
        fell = 0.0
        while damping < STEEPEST:
            square = slopes.T @ slopes
            move = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-9), -slopes.T @ errors)
            moved = logs + np.clip(move, -1.0, 1.0)
            tried = seen.errors(_at(stated, moved))
            fell = 1 - _cost(tried) / max(_cost(errors), 1e-12)
            if fell > 0:
                logs, errors, damping = moved, tried, max(damping / 5, GENTLEST)
                break
            damping *= 4
        if fell < ENOUGH:
            break
    return _at(stated, logs)


def _cost(errors: Floats) -> float:
    """Squares for small errors, straight for large ones: one request that was held up must not bend the model."""
    size = np.abs(errors)
    return float(np.where(size < 0.1, size * size, 0.2 * size - 0.01).sum())


def _at(stated: LlmSpeed, logs: Floats) -> LlmSpeed:
    iteration_s, prefill_token_s, row_s = (float(value) for value in np.exp(np.clip(logs, math.log(SMALLEST_S), 5.0)))
    return replace(stated, iteration_s=iteration_s, prefill_token_s=prefill_token_s, row_s=row_s)


def _first_guess(seen: _Seen) -> list[float]:
    """Half of the fastest token for the iteration, the rest shared out: good enough to begin with."""
    steps = np.maximum(np.array(seen.output) - 1, 1)
    fastest_s = max(float(np.percentile(seen.compute_s / steps, 5)), SMALLEST_S)
    per_token_s = float(np.median(seen.prefill_s / np.array(seen.prompt)))
    return [0.7 * fastest_s, max(0.5 * per_token_s, SMALLEST_S), max(0.15 * fastest_s, SMALLEST_S)]


def _played(seen: _Seen, speed: LlmSpeed) -> tuple[Floats, Floats]:
    """Prefill and decoding seconds of every request, had it come when it did."""
    timeline, ends = Timeline(), dict[Row, float]()
    # Nobody is turned away: each of them was answered.
    roomy = replace(speed, queue=len(seen.output))
    server = LlmServer(roomy, timeline, lambda row: ends.__setitem__(row, timeline.now_s))

    def offer(row: Row) -> None:
        server.offer(row)

    rows = []
    for at_s, prompt, output in zip(seen.arrived_s, seen.prompt, seen.output, strict=True):
        row = Row("", prompt, output, min(prompt + output, speed.kv_tokens), float(at_s))
        rows.append(row)
        timeline.at(float(at_s), offer, row)
    timeline.run()
    prefill_s = np.array([row.first_token_s - row.admitted_s for row in rows])
    compute_s = np.array([ends[row] - row.first_token_s for row in rows])
    return prefill_s, compute_s


def _arrived_s(row: OutcomeRow) -> float:
    """At the engine, but for the way back of the answer, which is the same for all."""
    return row.t_intended_s + (row.latency_s or 0.0) - row.compute_s - row.prefill_s - row.queue_s
