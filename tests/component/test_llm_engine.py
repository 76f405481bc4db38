"""The engine's streams over a tiny random model: tokens, batching, shared prefixes, and how an answer ends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.llm.continuation import Continuation, Sent
from skyshore.domain.llm import ChatMessage, FinishReason, LlmInput, Sampling, TokenChunk
from skyshore.engines.llm.engine import OnnxLlmEngine
from tests.fakes.tiny_llm_engine import GREEDY, answer, build_tiny_model, ids, small, task, until, until_idle


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def engine(model_dir: Path) -> AsyncIterator[OnnxLlmEngine]:
    made = await OnnxLlmEngine.start(small(model_dir))
    yield made
    await made.close()


async def test_a_stream_ends_with_reason_counts_and_one_outcome(engine: OnnxLlmEngine) -> None:
    request = LlmInput(messages=(ChatMessage("user", "hello there"),), sampling=GREEDY)
    found = await answer(engine, request)
    last = found.chunks[-1]
    assert last.finish_reason is FinishReason.LENGTH
    assert all(chunk.finish_reason is None for chunk in found.chunks[:-1])
    assert last.prompt_tokens == engine.tokenizer.count_chat(request.messages) == found.outcome.prompt_tokens
    assert found.tokens == found.outcome.output_tokens == 12
    assert found.outcome.prefill_s > 0
    assert found.outcome.compute_s > 0
    assert found.outcome.queue_s >= 0


async def test_the_three_forms_of_one_prompt_agree(engine: OnnxLlmEngine) -> None:
    messages = (ChatMessage("user", "hi"),)
    text = engine.tokenizer.render_chat(messages)
    forms = (
        LlmInput(messages=messages, sampling=GREEDY),
        LlmInput(prompt=text, sampling=GREEDY),
        ids(*engine.tokenizer.encode(text)),
    )
    texts = {(await answer(engine, form)).text for form in forms}
    assert len(texts) == 1


async def test_sixty_four_streams_lose_no_token(engine: OnnxLlmEngine) -> None:
    requests = [ids(*range(3 + number % 7, 20 + number), sampling=GREEDY) for number in range(64)]
    alone = [(await answer(engine, request)).text for request in requests[:8]]
    together = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert [found.tokens for found in together] == [12] * 64
    assert [found.text for found in together[:8]] == alone


async def test_the_load_shows_running_queued_and_idle_again(engine: OnnxLlmEngine) -> None:
    assert (engine.load().running, engine.load().queued, engine.load().capacity) == (0, 0, 104)
    long = replace(GREEDY, max_tokens=200)
    pending = [asyncio.ensure_future(answer(engine, ids(number + 3, 9, sampling=long))) for number in range(7)]
    await until(lambda: engine.load().decode_batch >= 2)
    load = engine.load()
    assert (load.running, load.queued) == (4, 3)
    assert 0 < load.kv_used < 1
    assert load.tokens_per_s > 0
    await asyncio.gather(*pending)
    await until_idle(engine)


# ---------------------------------------------------------------------------------------- batched equals alone

REQUEST = st.builds(
    lambda family, tokens, output, seed: ids(
        *[(family * 50 + place) % 280 for place in range(tokens)],
        sampling=Sampling(max_tokens=output, temperature=0.0 if seed % 2 else 0.8, seed=seed, ignore_eos=True),
    ),
    st.integers(0, 3),
    st.integers(1, 90),
    st.integers(1, 14),
    st.integers(0, 9),
)
SCHEDULE = st.lists(
    st.tuples(REQUEST, st.integers(0, 6), st.one_of(st.none(), st.integers(0, 5))), min_size=1, max_size=9
)


async def play(engine: OnnxLlmEngine, request: LlmInput, start_after: int, cancel_after: int | None) -> str | None:
    """The answer of a request that joins some turns later, or None if it left after some chunks."""
    for _ in range(start_after):
        await asyncio.sleep(0.002)
    stream = engine.generate(task(), request)
    texts: list[str] = []
    async for item in stream:
        if isinstance(item, TokenChunk):
            texts.append(item.text)
            if cancel_after is not None and len(texts) > cancel_after:
                await stream.aclose()  # type: ignore[attr-defined]
                return None
    return "".join(texts)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("precision", "kv_tokens"), [("fp32", 2000), ("int4", 160)])
async def test_answers_are_the_same_alone_and_in_any_company(model_dir: Path, precision: str, kv_tokens: int) -> None:
    """200 schedules of joins, leaves and cancels; the second engine is so short of memory that it preempts."""
    base = replace(small(model_dir), precision=precision, context_tokens=112)
    alone = await OnnxLlmEngine.start(replace(base, slots=1, prefix_slots=0))
    shared = await OnnxLlmEngine.start(replace(base, kv_budget_bytes=kv_tokens * 2 * 2 * 64 * 4))
    loop = asyncio.get_running_loop()
    preempted = 0

    async def compare(schedule: list[tuple[LlmInput, int, int | None]]) -> None:
        found = await asyncio.gather(*(play(shared, *entry) for entry in schedule))
        for text, (request, _, _) in zip(found, schedule, strict=True):
            if text is not None:
                assert text == (await answer(alone, request)).text
        await until_idle(shared)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(schedule=SCHEDULE)
    def check(schedule: list[tuple[LlmInput, int, int | None]]) -> None:
        asyncio.run_coroutine_threadsafe(compare(schedule), loop).result(60)

    await asyncio.to_thread(check)
    preempted = shared._steps._scheduler.preemptions
    await alone.close()
    await shared.close()
    assert (preempted > 0) == (kv_tokens < 1000), "the short budget must preempt, the long one must not"


async def test_a_seed_repeats_and_another_differs(engine: OnnxLlmEngine) -> None:
    chosen = Sampling(max_tokens=16, temperature=1.0, seed=5, ignore_eos=True)
    first = await answer(engine, ids(4, 5, 6, sampling=chosen))
    again = await answer(engine, ids(4, 5, 6, sampling=chosen))
    other = await answer(engine, ids(4, 5, 6, sampling=replace(chosen, seed=6)))
    assert first.text == again.text != other.text


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=40, temperature=1.0),
        Sampling(max_tokens=40, temperature=0.9, logprobs=2, repetition_penalty=1.3, stop=("x", "e")),
        Sampling(max_tokens=60, temperature=1.5, regex=r"[a-f]{3}-[0-9]{4}"),
        GREEDY,
    ],
    ids=["random", "penalties, logprobs and stops", "constrained", "greedy"],
)
async def test_another_node_can_go_on_with_an_answer_at_every_cut(
    engine: OnnxLlmEngine, model_dir: Path, sampling: Sampling
) -> None:
    request, lost = ids(4, 5, 6, sampling=sampling), replace(task(), task_id="an answer without a seed")
    whole = await answer(engine, request, lost)
    second = await OnnxLlmEngine.start(small(model_dir))
    load = [answer(second, ids(*range(3, 20 + number)), replace(task(), task_id=str(number))) for number in range(3)]
    again, *_ = await asyncio.gather(answer(second, request, lost), *load)
    await second.close()
    for cut in range(len(whole.chunks)):
        sent = Sent()
        for chunk in whole.chunks[:cut]:
            sent.add(chunk)
        continuation = Continuation(sent)
        got = whole.chunks[:cut] + [new for chunk in again.chunks if (new := continuation.take(chunk))]
        assert "".join(chunk.text for chunk in got) == whole.text
        assert sum(chunk.token_count for chunk in got) == whole.tokens
        logged = [[entry.token for chunk in chunks for entry in chunk.logprobs] for chunks in (got, whole.chunks)]
        assert logged[0] == logged[1]
        assert got[-1].finish_reason == whole.chunks[-1].finish_reason


async def test_two_tasks_without_a_seed_get_different_answers(engine: OnnxLlmEngine) -> None:
    chosen = Sampling(max_tokens=16, temperature=1.0, ignore_eos=True)
    texts = {(await answer(engine, ids(4, 5, 6, sampling=chosen), replace(task(), task_id=name))).text for name in "ab"}
    assert len(texts) == 2


async def test_a_shared_prefix_is_reported_and_changes_nothing(engine: OnnxLlmEngine) -> None:
    prompt = [(place * 5) % 280 for place in range(100)]
    cold = await answer(engine, ids(*prompt))
    warm = await answer(engine, ids(*prompt))
    assert cold.outcome.cached_tokens == 0
    assert warm.outcome.cached_tokens == warm.chunks[-1].cached_tokens == 99
    assert warm.text == cold.text


# ---------------------------------------------------------------------------------------- ends of an answer


async def test_a_stop_string_ends_the_answer_before_it(engine: OnnxLlmEngine) -> None:
    full = (await answer(engine, ids(9, 8, 7))).text
    assert len(full) > 6
    stop = full[4:6]
    found = await answer(engine, ids(9, 8, 7, sampling=replace(GREEDY, stop=(stop,))))
    assert found.text == full[: full.find(stop)]
    assert found.chunks[-1].finish_reason is FinishReason.STOP
    assert found.tokens < 12


async def test_the_end_token_ends_the_answer_unless_told_otherwise(engine: OnnxLlmEngine) -> None:
    for seed in range(20):  # nearly uniform: about one seed in two meets the end token, one of 288
        anything = Sampling(max_tokens=200, temperature=50.0, seed=seed)
        found = await answer(engine, ids(9, 8, 7, sampling=anything))
        if found.tokens < 200:
            break
    assert found.chunks[-1].finish_reason is FinishReason.STOP
    going_on = await answer(engine, ids(9, 8, 7, sampling=replace(anything, ignore_eos=True)))
    assert going_on.tokens == 200
    assert going_on.text.startswith(found.text)


async def test_logprobs_name_every_token_and_sum_below_one(engine: OnnxLlmEngine) -> None:
    found = await answer(engine, ids(9, 8, 7, sampling=replace(GREEDY, logprobs=3)))
    listed = [entry for chunk in found.chunks for entry in chunk.logprobs]
    assert len(listed) == 12
    for entry in listed:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token, entry.logprob), "greedy takes the likeliest"
        assert entry.logprob <= 0


async def test_json_schema_holds_at_any_temperature(engine: OnnxLlmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"],
        "additionalProperties": False,
    }
    for seed in range(3):
        chosen = Sampling(max_tokens=150, temperature=1.5, seed=seed, json_schema=json.dumps(schema))
        found = await answer(engine, ids(9, 8, 7, sampling=chosen))
        assert found.chunks[-1].finish_reason is FinishReason.STOP
        parsed = json.loads(found.text)
        assert set(parsed) == {"n", "ok"}
        assert 0 <= parsed["n"] <= 99


async def test_a_regex_holds_at_any_temperature(engine: OnnxLlmEngine) -> None:
    for seed in range(3):
        chosen = Sampling(max_tokens=60, temperature=1.5, seed=seed, regex=r"[a-f]{3}-[0-9]{4}")
        found = await answer(engine, ids(9, 8, 7, sampling=chosen))
        assert found.chunks[-1].finish_reason is FinishReason.STOP
        assert re.fullmatch(r"[a-f]{3}-[0-9]{4}", found.text)
