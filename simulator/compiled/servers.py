"""`simulator.servers`, and the state machines of `skyshore.nodemodel` behind them, on arrays."""

from __future__ import annotations

import math

from simulator.compiled.jit import compiled
from simulator.compiled.layout import LLM, NONE, VIDEO, Fleet, Record, Run
from simulator.compiled.line import append, index, remove_at, take_first
from simulator.compiled.timeline import SERVED, SERVERS, call_off, let_go, plan, task_event
from skyshore.nodemodel.speed import iteration_time_s

_iteration_time_s = compiled(iteration_time_s)


@compiled
def busy_s(run: Run, fleet: Fleet, number: int) -> float:
    """Seconds at full power so far."""
    server, now_s = fleet.servers[number], run.clock[0].now_s
    if server.kind == LLM:
        if not server.run_open:
            return float(server.worked_s)
        end_s = server.run_start_s + server.run_each_s * server.run_count
        return float(server.worked_s + (min(now_s, end_s) - server.run_start_s))
    worked_s, working = server.worked_s, fleet.working[number]
    for place in range(1, working[0] + 1):
        task = run.tasks[working[place]]
        under_way_s = now_s - task.started_s
        worked_s += under_way_s if under_way_s < task.work_s else task.work_s
    return float(worked_s / server.slots)


@compiled
def offer(run: Run, fleet: Fleet, number: int, task: int) -> bool:
    """Take a task now. False when there is no room."""
    server = fleet.servers[number]
    if fleet.working[number][0] + fleet.waiting[number][0] >= server.room:
        return False
    if server.kind == LLM and _reserved(run, task) > server.kv_tokens:
        return False
    append(fleet.waiting[number], task)
    if server.kind == VIDEO:
        _begin_video(run, fleet, number)
    elif not server.run_open:
        begin_iterations(run, fleet, number)
    elif _fits(run, fleet, number, fleet.waiting[number][1]):
        _cut(run, fleet, number)
    return True


@compiled
def cancel(run: Run, fleet: Fleet, number: int, task: int) -> None:
    """Forget a task. A segment's slot is free at once, a row's at the end of the iteration under way."""
    server, record = fleet.servers[number], run.tasks[task]
    place = index(fleet.waiting[number], task)
    if place != NONE:
        remove_at(fleet.waiting[number], place)
    elif server.kind == LLM:
        record.cancelled = 1
        record.holds += 1
    else:
        server.worked_s += min(run.clock[0].now_s - record.started_s, record.work_s)
        remove_at(fleet.working[number], index(fleet.working[number], task))
        call_off(run, task_event(fleet, task, SERVED))
    if server.kind == VIDEO:
        _begin_video(run, fleet, number)
    elif server.run_open:
        _cut(run, fleet, number)


@compiled
def end_segment(run: Run, fleet: Fleet, number: int, task: int) -> None:
    """A segment is done; the next one takes its slot."""
    fleet.servers[number].worked_s += run.tasks[task].work_s
    remove_at(fleet.working[number], index(fleet.working[number], task))
    _begin_video(run, fleet, number)


@compiled
def _begin_video(run: Run, fleet: Fleet, number: int) -> None:
    waiting, working, now_s = fleet.waiting[number], fleet.working[number], run.clock[0].now_s
    while waiting[0] and working[0] < fleet.servers[number].slots:
        task = take_first(waiting)
        record = run.tasks[task]
        record.started_s = now_s
        append(working, task)
        plan(run, task_event(fleet, task, SERVED), max(now_s + record.work_s, record.ready_s))


# ----------------------------------------------------------------------------------------------- language models


@compiled
def begin_iterations(run: Run, fleet: Fleet, number: int) -> None:
    """Admit what fits and plan the longest run of equal iterations."""
    server, waiting, working = fleet.servers[number], fleet.waiting[number], fleet.working[number]
    now_s = run.clock[0].now_s
    while waiting[0] and _fits(run, fleet, number, waiting[1]):
        task = take_first(waiting)
        run.tasks[task].admitted_s = now_s
        server.kv_reserved += _reserved(run, task)
        append(working, task)
    if not working[0]:
        return
    room, decoding, shortest = server.chunk_tokens, 0, 0
    for place in range(1, working[0] + 1):
        row = run.tasks[working[place]]
        row.chunk = min(room, row.prompt_tokens - row.prefilled)
        room -= row.chunk
        if row.prefilled == row.prompt_tokens:
            left = row.output_tokens - row.generated
            shortest = left if not decoding else min(shortest, left)
            decoding += 1
    prefill = server.chunk_tokens - room
    server.run_open, server.run_start_s = 1, now_s
    server.run_each_s = _iteration_time_s(prefill, decoding, server.iteration_s, server.prefill_token_s, server.row_s)
    server.run_count = 1 if prefill else shortest
    plan(run, SERVERS + number, now_s + server.run_each_s * server.run_count)


@compiled
def end_iterations(run: Run, fleet: Fleet, number: int) -> int:
    """Close the run. Returns how many rows are done; `fleet.finished` names them."""
    server, working = fleet.servers[number], fleet.working[number]
    server.run_open = 0
    server.worked_s += server.run_each_s * server.run_count
    end_s = server.run_start_s + server.run_each_s * server.run_count
    done = 0
    for prefilling in (False, True):  # whoever was decoding is done before those that got their first token
        for place in range(1, working[0] + 1):
            row = run.tasks[working[place]]
            if row.cancelled or (row.chunk > 0) != prefilling:
                continue
            if prefilling:
                _prefill(row, end_s)
            elif row.prefilled == row.prompt_tokens:
                row.generated += server.run_count
            if row.generated >= row.output_tokens:
                fleet.finished[done] = working[place]
                done += 1
    _leave(run, fleet, number)
    return done


@compiled
def _prefill(row: Record, end_s: float) -> None:
    row.prefilled += row.chunk
    if row.prefilled == row.prompt_tokens:
        row.generated, row.first_token_s = 1, end_s


@compiled
def _leave(run: Run, fleet: Fleet, number: int) -> None:
    """Take rows that are done or cancelled out of the batch."""
    working, kept = fleet.working[number], 0
    for place in range(1, working[0] + 1):
        task = working[place]
        row = run.tasks[task]
        if row.cancelled or row.generated >= row.output_tokens:
            fleet.servers[number].kv_reserved -= _reserved(run, task)
            if row.cancelled:
                let_go(run, task)
        else:
            kept += 1
            working[kept] = task
    working[0] = kept


@compiled
def _cut(run: Run, fleet: Fleet, number: int) -> None:
    server = fleet.servers[number]
    if server.run_count == 1:
        return
    passed = math.ceil((run.clock[0].now_s - server.run_start_s) / server.run_each_s - 1e-9)
    count = min(server.run_count, max(1, passed))
    if count != server.run_count:
        server.run_count = count
        call_off(run, SERVERS + number)
        plan(run, SERVERS + number, server.run_start_s + server.run_each_s * count)


@compiled
def _fits(run: Run, fleet: Fleet, number: int, task: int) -> bool:
    server = fleet.servers[number]
    has_slot = fleet.working[number][0] < server.slots
    return bool(has_slot and server.kv_reserved + _reserved(run, task) <= server.kv_tokens)


@compiled
def _reserved(run: Run, task: int) -> int:
    return int(run.tasks[task].prompt_tokens + run.tasks[task].output_tokens)
