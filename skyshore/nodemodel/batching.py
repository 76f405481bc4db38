"""Continuous batching as kernels over an ENGINE and its rows: admit, prefill in chunks, decode, finish.

Chunks share an iteration with the rows, or the two take turns as in `skyshore/engines/llm` (`LlmSpeed.stall_ratio`).
All that happens until something changes is one run of equal iterations. Nothing here plans events: `begin_iterations`
and `shorten` say whether the end of the run is a new one.
"""

from __future__ import annotations

import math

from skyshore.nodemodel.lines import append, take_first, unlink
from skyshore.nodemodel.records import COUNT, FIRST
from skyshore.nodemodel.speed import batch_time_s, chunk_limit
from skyshore.nodemodel.turns import chunk_share
from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE, Integers, Record, Records


@kernel
def joins_now(engine: Record, rows: Records) -> bool:
    """Whether the next waiting row would be admitted if the open run ended."""
    if not engine.waiting[COUNT] or engine.working[COUNT] >= engine.slots:
        return False
    return bool(engine.kv_reserved + rows[engine.waiting[FIRST]].reserved_tokens <= engine.kv_tokens)


@kernel
def run_end_s(engine: Record) -> float:
    """When the open run is over."""
    end_s: float = engine.run_start_s + engine.run_each_s * engine.run_count
    return end_s


@kernel
def begin_iterations(engine: Record, rows: Records, after: Integers, now_s: float, limit: int) -> bool:
    """Admit what fits and open the longest run without a change, of at most `limit` iterations (0: any number).

    False where there is nothing to do.
    """
    working = engine.working
    while joins_now(engine, rows):
        number = take_first(engine.waiting, after)
        rows[number].admitted_s = now_s
        engine.kv_reserved += rows[number].reserved_tokens
        append(working, after, number)
    if not working[COUNT]:
        return False
    if engine.stall_ratio:
        _plan_turn(engine, rows, after)
    else:
        _plan_together(engine, rows, after)
    if limit and engine.run_count > limit:
        engine.run_count = limit
    engine.run_open, engine.run_start_s = 1, now_s
    return True


@kernel
def _plan_together(engine: Record, rows: Records, after: Integers) -> None:
    """Plan chunks in the order of admission, and a token for every row whose prompt is prefilled."""
    room, decoding, shortest, number = engine.chunk_tokens, 0, 0, engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        row = rows[number]
        left = row.prompt_tokens - row.prefilled
        if left:
            row.chunk = min(room, left)
            room -= row.chunk
        else:
            left = row.output_tokens - row.generated
            if not decoding or left < shortest:
                shortest = left
            decoding += 1
        number = after[number]
    prefills = engine.chunk_tokens - room
    engine.run_prefills, engine.run_decodes = prefills, 1
    engine.run_count = 1 if prefills else shortest
    engine.run_each_s = batch_time_s(engine, prefills, decoding)


@kernel
def _plan_turn(engine: Record, rows: Records, after: Integers) -> None:
    """Plan a chunk of the prompts, or tokens for the rows; the two alternate."""
    prompts, decoding, shortest, number = 0, 0, 0, engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        row = rows[number]
        if row.prefilled < row.prompt_tokens:
            prompts += 1
        else:
            left = row.output_tokens - row.generated
            if not decoding or left < shortest:
                shortest = left
            decoding += 1
        number = after[number]
    if not prompts or (engine.prefilled_last and decoding):
        engine.prefilled_last, engine.run_prefills, engine.run_decodes = 0, 0, 1
        engine.run_count = 1 if prompts else shortest
        engine.run_each_s = batch_time_s(engine, 0, decoding)
        return
    prefills = _share_out(engine, rows, after, chunk_limit(engine, prompts, decoding))
    engine.prefilled_last, engine.run_prefills, engine.run_decodes = 1, prefills, 0
    engine.run_count = 1
    engine.run_each_s = batch_time_s(engine, prefills, 0)


@kernel
def _share_out(engine: Record, rows: Records, after: Integers, budget_tokens: int) -> int:
    """Give each prompt its part of a turn; returns the tokens in all."""
    left, number = budget_tokens, engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        row = rows[number]
        if row.prefilled < row.prompt_tokens:
            tokens = chunk_share(row.prompt_tokens - row.prefilled, left, budget_tokens)
            if tokens == NONE:
                break
            row.chunk = tokens
            left -= tokens
        number = after[number]
    return budget_tokens - left


@kernel
def shorten(engine: Record, now_s: float) -> bool:
    """Cut the open run at the first end of an iteration not before `now_s`. False when its end stays."""
    if not engine.run_open or engine.run_count == 1:
        return False
    # The slack keeps an end that lies at now_s up to rounding from costing one iteration more.
    passed = math.ceil((now_s - engine.run_start_s) / engine.run_each_s - 1e-9)
    count = min(engine.run_count, max(1, passed))
    if count == engine.run_count:
        return False
    engine.run_count = count
    return True


@kernel
def begin_or_shorten(engine: Record, rows: Records, after: Integers, now_s: float) -> bool:
    """After an offer: begin if the engine is idle, else let the new row join soon. True if the run's end changed."""
    if not engine.run_open:
        return begin_iterations(engine, rows, after, now_s, 0)
    return joins_now(engine, rows) and shorten(engine, now_s)


@kernel
def end_iterations(engine: Record, rows: Records, after: Integers, leaving: Integers) -> int:
    """Close the run. Returns how many rows are done.

    `leaving` names them, rows that were decoding before those whose first token was their last, and after them the
    `engine.dropped` rows that were cancelled during the run. It has room for all slots.
    """
    done, at_first_token, end_s = 0, False, run_end_s(engine)
    working, count, decodes = engine.working, engine.run_count, engine.run_decodes
    engine.run_open, engine.dropped = 0, 0
    engine.worked_s += engine.run_each_s * count
    before, number = NONE, working[FIRST]
    for _ in range(working[COUNT]):
        row, following = rows[number], after[number]
        leaves = False
        if row.cancelled:
            row.chunk = 0
        elif row.prefilled == row.prompt_tokens:
            if decodes:
                row.generated += count
                leaves = row.generated >= row.output_tokens
        elif row.chunk:
            at_first_token = _prefill(row, end_s) or at_first_token
        if leaves:
            _leave(engine, rows, after, before, number)
            leaving[done] = number
            done += 1
        else:
            before = number
        number = following
    if at_first_token:
        done = _sweep(engine, rows, after, leaving, done, 0)
    if engine.cancelled:
        engine.dropped = _sweep(engine, rows, after, leaving, done, 1) - done
        engine.cancelled = 0
    return done


@kernel
def _prefill(row: Record, end_s: float) -> bool:
    """Note a chunk. True for a row whose first token is its last."""
    row.prefilled += row.chunk
    row.chunk = 0
    if row.prefilled < row.prompt_tokens:
        return False
    # The logits of the prompt's last token give the first one of the answer.
    row.generated, row.first_token_s = 1, end_s
    return bool(row.output_tokens <= 1)


@kernel
def _sweep(  # noqa: PLR0917 (numba takes arguments by position)
    engine: Record, rows: Records, after: Integers, leaving: Integers, done: int, cancelled: int
) -> int:
    """Take out the rows that are done, or those that are cancelled; returns how many `leaving` names now."""
    before, number = NONE, engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        row, following = rows[number], after[number]
        if row.cancelled if cancelled else (row.generated >= row.output_tokens and not row.cancelled):
            _leave(engine, rows, after, before, number)
            leaving[done] = number
            done += 1
        else:
            before = number
        number = following
    return done


@kernel
def _leave(engine: Record, rows: Records, after: Integers, before: int, number: int) -> None:
    engine.kv_reserved -= rows[number].reserved_tokens
    unlink(engine.working, after, before, number)
