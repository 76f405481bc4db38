"""Continuous batching: the arithmetic a reader can check by hand, and what must hold for any mix of requests."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed

SPEED = LlmSpeed(
    "m",
    "modelled:test",
    iteration_s=0.010,
    prefill_token_s=0.0001,
    row_s=0.001,
    slots=2,
    kv_tokens=1000,
    chunk_tokens=100,
)


def row(prompt: int, output: int, at: float = 0.0, reserved: int | None = None) -> Row:
    return Row(f"{prompt}-{output}-{at}", prompt, output, reserved if reserved is not None else prompt + output, at)


def drain(batch: LlmBatch, arrivals: list[Row], limit: int | None = None) -> dict[str, float]:
    """Run to the end in virtual time the way a driver must; returns when each row was done."""
    now, done, todo = 0.0, {}, sorted(arrivals, key=lambda r: r.arrived_s)
    while todo or batch.rows or batch.waiting:
        while todo and todo[0].arrived_s <= now:
            assert batch.offer(todo.pop(0))
        run = batch.begin(now, limit=limit)
        if run is None:
            now = todo[0].arrived_s
            continue
        while todo and todo[0].arrived_s < run.end_s:
            assert batch.offer(todo[0])
            if batch.joins_now():
                run = batch.shorten(todo[0].arrived_s)
            todo.pop(0)
        now = run.end_s
        for finished, _ in batch.end():
            if finished.generated == finished.output_tokens:
                done[finished.key] = now
    return done


def test_one_request_takes_its_chunks_and_its_steps():
    # 250 prompt tokens: chunks of 100, 100, 50; the last gives token 1. Then 3 decode steps of 11 ms.
    request = row(250, 4)
    done = drain(LlmBatch(SPEED), [request])
    prefill = 3 * 0.010 + 250 * 0.0001
    assert request.first_token_s == pytest.approx(prefill)
    assert done[request.key] == pytest.approx(prefill + 3 * 0.011)


def test_two_rows_share_iterations():
    a, b = row(100, 11), row(100, 11)
    b.key = "b"
    done = drain(LlmBatch(SPEED), [a, b])
    # First chunk is a's, second chunk is b's beside a's decode row, then both decode together at 12 ms.
    assert a.first_token_s == pytest.approx(0.020)
    assert b.first_token_s == pytest.approx(0.020 + 0.021)
    assert done[a.key] == pytest.approx(0.041 + 9 * 0.012)
    assert done["b"] == pytest.approx(0.041 + 9 * 0.012 + 0.011)


def test_a_third_waits_for_a_slot_and_kv_blocks_even_with_a_free_slot():
    batch = LlmBatch(SPEED)
    first, big, third = row(100, 5), row(100, 5, reserved=950), row(100, 5)
    for r in (first, big, third):
        assert batch.offer(r)
    batch.begin(0.0)
    assert batch.rows == [first]
    assert not batch.joins_now(), "950 tokens do not fit beside 105 of 1000"
    assert list(batch.waiting) == [big, third], "first come, first served: nobody overtakes"


def test_what_can_never_fit_is_refused_and_so_is_one_too_many():
    batch = LlmBatch(LlmSpeed("m", "modelled:test", iteration_s=1, slots=1, queue=1, kv_tokens=100))
    assert not batch.offer(row(90, 20))
    assert batch.offer(row(10, 10))
    assert batch.offer(row(10, 11))
    assert not batch.offer(row(10, 12))


def test_a_newcomer_joins_at_the_next_boundary():
    batch = LlmBatch(SPEED)
    batch.offer(row(100, 1000, reserved=400))
    batch.begin(0.0)
    batch.end()
    run = batch.begin(0.020)
    assert run is not None and run.count == 999
    batch.offer(row(10, 2))
    cut = batch.shorten(0.020 + 0.0275)
    assert cut is not None and cut.count == 3, "2.5 steps of 11 ms are over: the third one ends first"


def test_cancelling_a_running_row_frees_its_slot_at_the_end_of_the_iteration():
    batch = LlmBatch(SPEED)
    gone, stays = row(50, 100), row(50, 100)
    for r in (gone, stays):
        batch.offer(r)
    batch.begin(0.0, limit=1)
    batch.cancel(gone)
    assert gone in batch.rows
    assert [r for r, _ in batch.end()] == [stays]
    assert batch.rows == [stays]
    assert batch.kv_reserved == 150


requests = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 60), st.floats(0, 2, allow_nan=False)), min_size=1, max_size=12
)


@given(requests)
@settings(max_examples=60, deadline=None)
def test_stepping_one_by_one_and_in_long_runs_is_the_same(mix):
    """The emulated engine steps singly, the simulator in runs: their answers must not differ."""

    def rows() -> list[Row]:
        made = [row(p, o, at) for p, o, at in mix]
        for i, r in enumerate(made):
            r.key = str(i)
        return made

    single, merged = drain(LlmBatch(SPEED), rows(), limit=1), drain(LlmBatch(SPEED), rows())
    assert single.keys() == merged.keys() == {str(i) for i in range(len(mix))}
    for key, at in single.items():
        assert merged[key] == pytest.approx(at, abs=1e-9)


@given(requests)
@settings(max_examples=60, deadline=None)
def test_memory_and_slots_are_never_exceeded_and_all_is_returned(mix):
    batch = LlmBatch(SPEED)
    begin = batch.begin

    def watched(now_s: float, *, limit: int | None = None):
        run = begin(now_s, limit=limit)
        assert len(batch.rows) <= SPEED.slots
        assert batch.kv_reserved == sum(r.reserved_tokens for r in batch.rows) <= SPEED.kv_tokens
        if run is not None:
            assert run.prefill_tokens <= SPEED.chunk_tokens
        return run

    batch.begin = watched  # type: ignore[method-assign]
    made = [row(p, o, at) for p, o, at in mix]
    drain(batch, made)
    assert batch.kv_reserved == 0
    assert all(r.generated == r.output_tokens and not math.isnan(r.first_token_s) for r in made)
    tokens = sum(r.output_tokens - 1 for r in made)
    least = sum(r.prompt_tokens for r in made) * SPEED.prefill_token_s + tokens * SPEED.row_s
    assert batch.busy_s >= least
