"""Finds the iteration times of continuously batching engines from the times of their requests.

An iteration takes `iteration_s + p * prefill_token_s + r * row_s` (see `LlmSpeed`), but nobody saw the iterations: only
when each request came, gave its first token and ended. So the requests are played through the very state machines that
the simulator runs, and the figures are moved until its times are those that were seen (Levenberg 1944). Engines of one
machine are played together: how much they hold each other up is one figure more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.fit.engines import SharedEngines
from skyshore.nodemodel.llm import Row
from skyshore.nodemodel.speed import LlmSpeed
from skyshore.report.request_record import RequestRecord

Floats = NDArray[np.float64]

FLOOR_S = 0.02
"""Errors are relative to the measured time, but to no less than this: shorter times are not measured exactly."""
SMALLEST_S = 1e-7
STEPS = (0.1, 0.02)
"""Steps of the logarithm of a parameter for its slope. Batches change in jumps, so a large step comes first."""
ROUNDS = 30
STEEPEST, GENTLEST = 1e6, 1e-6
"""Bounds of the damping."""
ENOUGH = 1e-5
"""Relative decrease of the error below which the fit ends."""
ROW_MULTIPLES = (1, 2)
"""Paddings of a decode run that are tried (`LlmSpeed.row_multiple`)."""
FIRST_CONTENTIONS = (0.05, 0.5)
"""Start values of the contention. With a single one, a slow row can be mistaken for contention."""
FIGURES = 3
"""Of one engine."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Requests in order of arrival; [n] each."""

    arrived_s: Floats
    prompt: Sequence[int]
    output: Sequence[int]
    first_s: Floats
    """From arrival to the first token, queueing included."""
    compute_s: Floats

    @classmethod
    def of(cls, rows: Sequence[RequestRecord]) -> _Seen:
        rows = sorted(
            (row for row in rows if row.worker.output_tokens > 0 and row.worker.prompt_tokens > 0), key=_arrived_s
        )
        return cls(
            arrived_s=np.array([_arrived_s(row) for row in rows]),
            prompt=[row.worker.prompt_tokens for row in rows],
            output=[row.worker.output_tokens for row in rows],
            first_s=np.array([row.worker.queue_s + row.worker.prefill_s for row in rows]),
            compute_s=np.array([row.worker.compute_s for row in rows]),
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """The engines of a run as found."""

    speeds: tuple[LlmSpeed, ...]
    contention: float
    """See `Calibration`."""


def fit_engines(rows: Sequence[Sequence[RequestRecord]], stated: Sequence[LlmSpeed]) -> Fitted:
    """Each engine's `stated` speed with the times that fit its `rows` best; slots, batching and memory stay."""
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
    """Shape (2n,): relative errors of the time to the first token and of the decode time at these speeds."""
    found = []
    for each, (first_s, compute_s) in zip(seen, _played(seen, fitted), strict=True):
        found.append((first_s - each.first_s) / np.maximum(each.first_s, FLOOR_S))
        found.append((compute_s - each.compute_s) / np.maximum(each.compute_s, FLOOR_S))
    return np.concatenate(found)


def _cost(errors: Floats) -> float:
    """Huber loss: squared for small errors, linear for large ones, so that one outlier does not change the fit."""
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
    """Start values, from the fastest token and the median time per prompt token."""
    steps = np.maximum(np.array(seen.output) - 1, 1)
    fastest_s = max(float(np.percentile(seen.compute_s / steps, 5)), SMALLEST_S)
    per_token_s = float(np.median(seen.first_s / np.array(seen.prompt)))
    return [0.7 * fastest_s, max(0.5 * per_token_s, SMALLEST_S), max(0.15 * fastest_s, SMALLEST_S)]


def _played(seen: Sequence[_Seen], fitted: Fitted) -> list[tuple[Floats, Floats]]:
    """Time to the first token and decode time in seconds of every request, simulated with its measured arrival."""
    # The queue holds every request: each of them was answered.
    roomy = [replace(speed, queue=len(each.output)) for each, speed in zip(seen, fitted.speeds, strict=True)]
    engines, rows = SharedEngines(roomy, fitted.contention), list[list[Row]]()
    for number, (each, speed) in enumerate(zip(seen, fitted.speeds, strict=True)):
        rows.append([])
        for at_s, prompt, output in zip(each.arrived_s, each.prompt, each.output, strict=True):
            row = Row("", prompt, output, min(prompt + output, speed.kv_tokens), float(at_s))
            rows[number].append(row)
            engines.offer_at(float(at_s), number, row)
    engines.run()
    return [
        (
            np.array([row.first_token_s - row.arrived_s for row in some]),
            np.array([engines.ends_s[row] - row.first_token_s for row in some]),
        )
        for some in rows
    ]


def _arrived_s(row: RequestRecord) -> float:
    """Arrival at the engine, except for the network delay of the answer, which is the same for all."""
    return row.t_intended_s + row.latency_s - row.worker.compute_s - row.worker.prefill_s - row.worker.queue_s
