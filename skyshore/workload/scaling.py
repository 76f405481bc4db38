"""Changes the load of a schedule; every change is recorded in the provenance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival
from skyshore.workload.schedule import Schedule


def compress(schedule: Schedule, factor: float) -> Schedule:
    """Make the schedule `factor` times as fast: the rate rises; the CV of the gaps and the deadlines do not change."""
    if factor <= 0:
        raise ValueError("factor must be above 0")
    arrivals = (replace(a, t_intended_s=round(a.t_intended_s / factor, 6)) for a in schedule.arrivals)
    duration_s = round(schedule.duration_s / factor, 6)
    return _derived(schedule, arrivals, duration_s, f"compress factor={factor:g}")


def thin(schedule: Schedule, keep: float, seed: int) -> Schedule:
    """Keep each whole session with probability `keep`: the rate falls, conversations stay complete."""
    if not 0 < keep <= 1:
        raise ValueError("keep must be above 0 and at most 1")
    rng = np.random.default_rng(seed)
    sessions = dict.fromkeys(a.session or a.request_id for a in schedule.arrivals)
    kept = {session for session, draw in zip(sessions, rng.random(len(sessions)), strict=True) if draw < keep}
    arrivals = (a for a in schedule.arrivals if (a.session or a.request_id) in kept)
    return _derived(schedule, arrivals, schedule.duration_s, f"thin by session keep={keep:g} seed={seed}")


def window(schedule: Schedule, start_s: float, length_s: float) -> Schedule:
    """The arrivals in [start, start + length), moved to start at 0."""
    if start_s < 0 or length_s <= 0:
        raise ValueError("start_s must be at least 0 and length_s above 0")
    arrivals = (
        replace(a, t_intended_s=round(a.t_intended_s - start_s, 6))
        for a in schedule.arrivals
        if start_s <= a.t_intended_s < start_s + length_s
    )
    return _derived(schedule, arrivals, length_s, f"window start_s={start_s:g} length_s={length_s:g}")


def cap_tokens(schedule: Schedule, max_prompt_tokens: int, max_output_tokens: int) -> Schedule:
    """Limit lengths that a small model or machine cannot serve. This changes the work of the requests."""
    if max_prompt_tokens < 1 or max_output_tokens < 1:
        raise ValueError("both caps must be at least 1")
    arrivals = (_capped(a, max_prompt_tokens, max_output_tokens) for a in schedule.arrivals)
    step = f"cap_tokens prompt={max_prompt_tokens} output={max_output_tokens}"
    return _derived(schedule, arrivals, schedule.duration_s, step)


def _capped(arrival: Arrival, max_prompt_tokens: int, max_output_tokens: int) -> Arrival:
    if arrival.kind is not TaskKind.LLM:
        return arrival
    prompt_tokens = min(arrival.prompt_tokens, max_prompt_tokens)
    blocks = -(-prompt_tokens // arrival.prefix_block_tokens) if arrival.prefix_ids else 0
    return replace(
        arrival,
        prompt_tokens=prompt_tokens,
        output_tokens=min(arrival.output_tokens, max_output_tokens),
        prefix_ids=arrival.prefix_ids[:blocks],
    )


def _derived(schedule: Schedule, arrivals: Iterable[Arrival], duration_s: float, step: str) -> Schedule:
    return Schedule(tuple(arrivals), duration_s, schedule.seed, (*schedule.provenance, step))
