"""Time to first and per output token, predicted from a node profile, against the batch model that nodes emulate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed

SPEED = LlmSpeed(
    *("m", "modelled:test"), iteration_s=0.01, prefill_token_s=1e-4, row_s=0.001, slots=8, chunk_tokens=100
)


@given(prompt=st.integers(1, 900), others=st.integers(0, 6))
def test_what_is_predicted_is_what_a_batch_does(prompt: int, others: int) -> None:
    batch, now = LlmBatch(SPEED), 0.0
    rows = [Row(f"r{number}", 1, 10_000, 2_000, 0.0) for number in range(others)]
    for row in rows:
        assert batch.offer(row)
    while any(row.generated < 1 for row in rows):
        run = batch.begin(now)
        assert run
        now = run.end_s
        batch.end()
    newcomer = Row("new", prompt, 50, prompt + 50, now)
    assert batch.offer(newcomer)
    arrived_s, second_s = now, 0.0
    while newcomer.generated < 2:
        run = batch.begin(now, limit=1)
        assert run
        second_s, now = run.each_s, run.end_s
        batch.end()
    assert newcomer.first_token_s - arrived_s == pytest.approx(SPEED.ttft_s(prompt, others))
    assert second_s == pytest.approx(SPEED.tpot_s(others + 1))
