"""The batch that is modelled takes the turns that the real engine's scheduler takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.engines.llm.kv_ledger import KvLimits
from skyshore.engines.llm.scheduler import StepScheduler
from skyshore.engines.llm.sequence import Sequence
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed

SPEED = LlmSpeed(
    "m",
    "modelled:test",
    iteration_s=0.006,
    prefill_token_s=0.002,
    row_s=0.003,
    slots=3,
    chunk_tokens=64,
    stall_ratio=0.7,
    row_multiple=2,
)
Mix = list[tuple[int, int, float]]
"""Prompt tokens, output tokens, arrival in seconds; by arrival."""
Times = list[tuple[float, float]]
"""First token and end of each, in the order of arrival."""


def lived(mix: Mix, speed: LlmSpeed) -> Times:
    """Steps of the real scheduler, each as long as the model says; distinct tokens, so no prefix is shared."""
    scheduler = StepScheduler(KvLimits(speed.slots, prefixes=0, budget_tokens=10**6, granule_tokens=1))
    sequences = [
        Sequence(
            tokens=[1000 * i + t for t in range(prompt)],
            request_id=i,
            prompt_tokens=prompt,
            deadline_s=at + 1e6,
            arrival=i,
        )
        for i, (prompt, _, at) in enumerate(mix)
    ]
    first, ends = dict[int, float](), dict[int, float]()
    now_s, come = 0.0, 0
    while len(ends) < len(mix):
        while come < len(mix) and mix[come][2] <= now_s:
            scheduler.add(sequences[come])
            come += 1
        if come == len(ends):
            now_s = mix[come][2]
            continue
        step = scheduler.plan(speed.chunk_limit(scheduler.prompts, scheduler.decoding))
        tokens = sum(chunk.stop - chunk.start for chunk in step.chunks)
        now_s += speed.iteration_time_s(tokens, len(step.rows))
        scheduler.advance(step)
        gained = [*step.rows, *(chunk.sequence for chunk in step.chunks if chunk.sequence.prefilled)]
        for each in gained:
            each.tokens.append(-1)
            first.setdefault(each.request_id, now_s)
            if len(each.tokens) - each.prompt_tokens == mix[each.request_id][1]:
                ends[each.request_id] = now_s
                scheduler.finish(each.request_id)
    return [(first[i], ends[i]) for i in range(len(mix))]


def modelled(mix: Mix, speed: LlmSpeed) -> Times:
    """The same through the model, its runs cut for newcomers as the simulator cuts them."""
    batch, now_s, come = LlmBatch(speed), 0.0, 0
    rows = [Row(str(i), prompt, output, prompt + output, at) for i, (prompt, output, at) in enumerate(mix)]
    ends = dict[str, float]()
    while len(ends) < len(mix):
        while come < len(mix) and mix[come][2] <= now_s:
            batch.offer(rows[come])
            come += 1
        run = batch.begin(now_s)
        if run is None:
            now_s = mix[come][2]
            continue
        while come < len(mix) and run is not None and mix[come][2] < run.end_s:
            batch.offer(rows[come])
            if batch.joins_now():
                run = batch.shorten(mix[come][2])
            come += 1
        assert run is not None
        now_s = run.end_s
        ends |= {row.key: now_s for row, _ in batch.end() if row.generated == row.output_tokens}
    return [(row.first_token_s, ends[row.key]) for row in rows]


MIXES = st.lists(
    st.tuples(st.integers(1, 150), st.integers(1, 40), st.integers(0, 400).map(lambda tick: tick * 0.00437)),
    min_size=1,
    max_size=10,
).map(lambda mix: sorted(mix, key=lambda each: each[2]))


@given(MIXES)
@settings(max_examples=60, deadline=None)
def test_first_tokens_and_ends_are_those_of_the_real_scheduler(mix: Mix) -> None:
    for one, other in zip(modelled(mix, SPEED), lived(mix, SPEED), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_prompt_waits_longer_beside_answers_than_alone() -> None:
    alone, beside = [(48, 2, 0.5)], [(1, 100, 0.0), (48, 2, 0.5)]
    alone_s = modelled(alone, SPEED)[-1][0] - 0.5
    assert alone_s == pytest.approx(0.006 + 48 * 0.002)
    # Six chunks of eight tokens, each but the last before a turn of the answer that is being decoded.
    six_s = 6 * (0.006 + 8 * 0.002) + 5 * 0.012
    assert modelled(beside, SPEED)[-1][0] - 0.5 == pytest.approx(six_s, abs=0.012)
    together = replace(SPEED, stall_ratio=0.0)
    assert modelled(beside, together)[-1][0] - 0.5 < 0.13, "sharing one iteration, it hardly waits"


def test_rows_are_padded_to_a_multiple() -> None:
    assert [SPEED.iteration_time_s(0, rows) for rows in (1, 2, 3, 4)] == pytest.approx([0.012, 0.012, 0.018, 0.018])
    assert SPEED.chunk_limit(1, 0) == 64, "nobody is held up: whole chunks"
    assert SPEED.chunk_limit(1, 2) == 8
    assert SPEED.chunk_limit(3, 2) == int((3 * 0.7 * 0.012 - 0.006) / 0.002) == 9
