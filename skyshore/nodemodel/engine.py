"""What language-model and video engines have in common, and the queue of a video engine, as kernels."""

from __future__ import annotations

from skyshore.nodemodel.batching import run_end_s
from skyshore.nodemodel.lines import append, is_in, remove, take_first
from skyshore.nodemodel.records import COUNT, FIRST, LLM, VIDEO
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE, Integers, Record, Records

LLM_FIELDS = ("kv_tokens", "chunk_tokens", "row_multiple", "stall_ratio")


def fill_engine(engine: Record, speed: LlmSpeed | VideoSpeed) -> None:
    """Blank an ENGINE and make it the one of a profile. `engine` is a plain record or a row of a `numpy.recarray`."""
    engine.slots, engine.room, engine.busy_watts = speed.slots, speed.slots + speed.queue, speed.busy_watts
    engine.slowdown = engine.hindrance = 1.0
    if isinstance(speed, LlmSpeed):
        engine.kind = LLM
        for name in LLM_FIELDS:
            setattr(engine, name, getattr(speed, name))
        set_pace(engine, speed)
    else:
        engine.kind, engine.segment_s = VIDEO, speed.segment_s
    clear(engine)


def set_pace(engine: Record, speed: LlmSpeed) -> None:
    """State another pace, from the next iteration on."""
    engine.stated_iteration_s, engine.stated_row_s = speed.iteration_s, speed.row_s
    engine.stated_prefill_token_s = speed.prefill_token_s
    change_pace(engine)


@kernel
def clear(engine: Record) -> None:
    """Forget all tasks and all work, for the engine of a node that restarts. Its pace stays."""
    engine.waiting[COUNT] = engine.working[COUNT] = engine.unpaid[COUNT] = 0
    engine.kv_reserved = engine.run_open = engine.run_count = engine.prefilled_last = engine.paying = 0
    engine.cancelled = engine.dropped = 0
    engine.worked_s = 0.0


@kernel
def change_pace(engine: Record) -> None:
    """Take on `slowdown` and `hindrance`, from the next iteration on; shorten the open run, if there is one."""
    factor = engine.slowdown * engine.hindrance
    engine.iteration_s = engine.stated_iteration_s * factor
    engine.prefill_token_s = engine.stated_prefill_token_s * factor
    engine.row_s = engine.stated_row_s * factor


@kernel
def hindrance(contention: float, others: int) -> float:
    """Factor on an engine's times beside `others` busy engines of its machine; `contention`: see `Calibration`."""
    return 1.0 + contention * others


@kernel
def is_full(engine: Record) -> bool:
    """Whether one more offer would be refused."""
    return bool(engine.waiting[COUNT] + engine.working[COUNT] >= engine.room)


@kernel
def offer(engine: Record, rows: Records, after: Integers, number: int) -> bool:
    """Queue a task. False when all room is taken or it can never fit the memory."""
    if is_full(engine):
        return False
    if engine.kind == LLM:
        row = rows[number]
        if row.reserved_tokens > engine.kv_tokens:
            return False
        row.prefilled = row.generated = row.chunk = row.cancelled = 0
    append(engine.waiting, after, number)
    return True


@kernel
def cancel(engine: Record, rows: Records, after: Integers, number: int, now_s: float) -> bool:
    """Forget a task, if it is there. True when it stays in the batch until the open run ends, which one may shorten."""
    if remove(engine.waiting, after, number):
        return False
    row = rows[number]
    if engine.kind == VIDEO:
        if remove(engine.working, after, number):
            engine.worked_s += min(now_s - row.started_s, row.work_s)
        return False
    if engine.run_open:
        if row.cancelled or not is_in(engine.working, after, number):
            return False
        row.cancelled = 1
        engine.cancelled += 1
        return True
    if remove(engine.working, after, number):
        engine.kv_reserved -= row.reserved_tokens
    return False


@kernel
def busy_s(engine: Record, rows: Records, after: Integers, now_s: float) -> float:
    """Seconds at full power so far, those of the open run included; one of several slots counts for its share."""
    worked_s: float = engine.worked_s
    if engine.kind == LLM:
        if engine.run_open:
            worked_s += min(now_s, run_end_s(engine)) - engine.run_start_s
        return worked_s
    number = engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        row = rows[number]
        running_s = now_s - row.started_s
        worked_s += running_s if running_s < row.work_s else row.work_s
        number = after[number]
    return float(worked_s / engine.slots)


# ------------------------------------------------------------------------------------------------------- video


@kernel
def segment_work_s(engine: Record, frames: int, frame_s: float) -> float:
    """Seconds of one slot that a segment takes on an engine that drifts."""
    work_s: float = (engine.segment_s + frames * frame_s) * engine.slowdown
    return work_s


@kernel
def begin_segment(engine: Record, rows: Records, after: Integers, now_s: float) -> int:
    """Move the next segment into a free slot. Returns its number, or NONE. Call it until it returns NONE.

    The segment is done at `max(now_s + work_s, ready_s)`.
    """
    if not engine.waiting[COUNT] or engine.working[COUNT] >= engine.slots:
        return NONE
    number = take_first(engine.waiting, after)
    rows[number].started_s = now_s
    append(engine.working, after, number)
    return number


@kernel
def end_segment(engine: Record, rows: Records, after: Integers, number: int) -> None:
    """A segment in service is done; its slot is free."""
    engine.worked_s += rows[number].work_s
    remove(engine.working, after, number)
