"""Readers of published LLM traces: from lines to arrivals, in order of time, the first at 0 s. They open no file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from skyshore.domain.errors import SkyshoreError
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

MOONCAKE_BLOCK_TOKENS = 512


class InvalidTrace(SkyshoreError):
    """A trace that does not have the expected format; the message names the line."""

    code = "invalid_trace"


def read_azure(lines: Iterable[str]) -> list[Arrival]:
    """Azure LLM inference traces of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.

    Requests without output failed when the trace was recorded; they are dropped. Every request is its own session.

    Raises:
        InvalidTrace: a column is missing, or a value is not a time or a number.
    """
    reader = csv.DictReader(lines)
    if missing := {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} - set(reader.fieldnames or ()):
        raise InvalidTrace(f"line 1: no column {', '.join(sorted(missing))}; this is not an Azure LLM trace")
    arrivals = []
    for row in reader:
        try:
            time = datetime.fromisoformat(row["TIMESTAMP"])
            prompt_tokens, output_tokens = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        except ValueError as error:
            raise InvalidTrace(f"line {reader.line_num}: {error}") from error
        if output_tokens > 0:
            time_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            arrivals.append(_llm(time_s, max(1, prompt_tokens), output_tokens, session=f"line{reader.line_num}"))
    return _from_zero(arrivals)


def read_mooncake(lines: Iterable[str]) -> list[Arrival]:
    """Mooncake JSON lines: `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512-token blocks.

    The trace has no sessions. A request is added to the latest session with which it shares a block after the first;
    all requests share the first block, the system prompt.

    Raises:
        InvalidTrace: a line is not such an object.
    """
    arrivals: list[Arrival] = []
    session_of_block: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            blocks = tuple(int(block) for block in row["hash_ids"])
            known = (session_of_block[block] for block in reversed(blocks[1:]) if block in session_of_block)
            session = next(known, f"line{number}")
            lengths = max(1, int(row["input_length"])), max(1, int(row["output_length"]))
            arrival = _llm(float(row["timestamp"]) / 1e3, *lengths, session=session, prefix_ids=blocks)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidTrace(f"line {number}: {type(error).__name__}: {error}") from error
        arrivals.append(arrival)
        for block in blocks[1:]:
            session_of_block.setdefault(block, session)
    return _from_zero(arrivals)


def tick_of(arrivals: Sequence[Arrival]) -> float:
    """Seconds between the ticks of a trace with a coarse clock; 0 for a fine clock.

    A clock is coarse if 90 % of the gaps between distinct times are within 1 % of their median. (Some ticks of the
    Mooncake trace are 1 ms off, so a greatest common divisor would not find them.)
    """
    distinct = np.unique([arrival.t_intended_s for arrival in arrivals])
    if len(distinct) < 10:
        return 0.0
    gaps = np.diff(distinct)
    median = float(np.median(gaps))
    return round(median, 3) if np.mean(np.abs(gaps - median) <= median / 100) >= 0.9 else 0.0


def spread_ticks(arrivals: Sequence[Arrival], tick_s: float, rng: np.random.Generator) -> list[Arrival]:
    """Move each arrival by a uniform time within its tick, because the batches are due to the coarse clock.

    The requests of one session keep their order.
    """
    times = np.array([arrival.t_intended_s for arrival in arrivals]) + rng.uniform(0, tick_s, len(arrivals))
    places_of_session: dict[str, list[int]] = {}
    for place, arrival in enumerate(arrivals):
        places_of_session.setdefault(arrival.session, []).append(place)
    for places in places_of_session.values():
        times[places] = np.sort(times[places])
    moved = [replace(arrival, t_intended_s=float(time)) for arrival, time in zip(arrivals, times, strict=True)]
    return sorted(moved, key=lambda arrival: arrival.t_intended_s)


def _llm(
    time_s: float, prompt_tokens: int, output_tokens: int, *, session: str, prefix_ids: tuple[int, ...] = ()
) -> Arrival:
    return Arrival(
        t_intended_s=time_s,
        request_id="",
        kind=TaskKind.LLM,
        session=session,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prefix_ids=prefix_ids,
        prefix_block_tokens=MOONCAKE_BLOCK_TOKENS if prefix_ids else 0,
    )


def _from_zero(arrivals: list[Arrival]) -> list[Arrival]:
    if not arrivals:
        raise InvalidTrace("the trace has no requests")
    start_s = min(arrival.t_intended_s for arrival in arrivals)
    shifted = (replace(arrival, t_intended_s=arrival.t_intended_s - start_s) for arrival in arrivals)
    return sorted(shifted, key=lambda arrival: arrival.t_intended_s)
