"""The engine as its callers see it, over a tiny random model: streams, batching, cancellation, limits, bad input."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyshore.catalogue.llama.build import build
from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NodeUnavailable,
    NotFound,
    PromptTooLong,
    QueueFull,
)
from skyshore.domain.llm import ChatMessage, FinishReason, LlmInput, Sampling, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.errors import EngineMisconfigured
from skyshore.engines.llm.settings import LlmEngineSettings
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

GREEDY = Sampling(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    source = write_tiny_gguf(
        folder / "model.gguf", TinyLlama(hidden=128, ffn=192, heads=4, kv_heads=1, head_dim=64, seed=3)
    )
    for precision in ("fp32", "int4"):
        build(source, folder, precision)
    return folder


@pytest.fixture
async def engine(model_dir: Path) -> AsyncIterator[OnnxLlmEngine]:
    made = await OnnxLlmEngine.start(small(model_dir))
    yield made
    await made.close()


def small(model_dir: Path) -> LlmEngineSettings:
    return LlmEngineSettings(
        model_dir, precision="fp32", slots=4, queue_limit=100, context_tokens=256, prefill_chunk_tokens=16
    )


def task(service_class: str = "standard", deadline_s: float = 60.0) -> Task:
    return Task("t", TaskKind.LLM, service_class=service_class, deadline_s=deadline_s)


def ids(*tokens: int, sampling: Sampling = GREEDY) -> LlmInput:
    return LlmInput(prompt_token_ids=tokens, sampling=sampling)


@dataclass
class Collected:
    chunks: list[TokenChunk]
    outcome: WorkerOutcome

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        return sum(chunk.token_count for chunk in self.chunks)


async def answer(engine: OnnxLlmEngine, request: LlmInput, of: Task | None = None) -> Collected:
    items = [item async for item in engine.generate(of or task(), request)]
    assert isinstance(items[-1], WorkerOutcome), "the outcome comes last"
    chunks = [item for item in items if isinstance(item, TokenChunk)]
    assert len(chunks) == len(items) - 1, "and only once"
    return Collected(chunks, items[-1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110 - the engine's load has no event to wait for, by design
            await asyncio.sleep(0.002)


@contextmanager
def held(engine: OnnxLlmEngine) -> Iterator[threading.Event]:
    """Steps begin and do not end meanwhile, however slowly this machine brings what is to come; set once one began."""
    decoder, go, began = engine._steps._decoder, threading.Event(), threading.Event()
    extend, decode = decoder.extend, decoder.decode

    def wait_and(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (began.set(), go.wait(100), step(*given, **named))[2]

    decoder.extend, decoder.decode = wait_and(extend), wait_and(decode)  # type: ignore[method-assign]
    try:
        yield began
    finally:
        go.set()
        decoder.extend, decoder.decode = extend, decode  # type: ignore[method-assign]


async def until_idle(engine: OnnxLlmEngine) -> None:
    await until(lambda: engine.load().running == engine.load().queued == 0)


# ----------------------------------------------------------------------------------------------------- streams


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


# ------------------------------------------------------------------------------------------------ cancellation


async def test_closing_a_stream_frees_its_slot_within_a_step(model_dir: Path) -> None:
    engine = await OnnxLlmEngine.start(replace(small(model_dir), slots=1))
    stream = engine.generate(task(), ids(5, 6, sampling=replace(GREEDY, max_tokens=250)))
    await anext(stream)
    waiting = asyncio.ensure_future(answer(engine, ids(7, 8)))
    await asyncio.sleep(0)
    generated = engine._steps._generations
    held = next(iter(generated.values()))
    await stream.aclose()  # type: ignore[attr-defined]
    at_close = held.output_tokens
    await waiting
    assert held.output_tokens <= at_close + 1, "at most the step under way may still add a token"
    await until_idle(engine)
    await engine.close()


async def test_a_cancelled_reader_frees_its_slot(engine: OnnxLlmEngine) -> None:
    readers = [
        asyncio.ensure_future(answer(engine, ids(5, number, sampling=replace(GREEDY, max_tokens=250))))
        for number in range(10)
    ]
    await until(lambda: engine.load().running == 4)
    for reader in readers:
        reader.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*readers, return_exceptions=True)
    )
    await until_idle(engine)
    assert (await answer(engine, ids(5, 6))).tokens == 12


# ------------------------------------------------------------------------------------------ limits and classes


async def test_a_deadline_passes_while_waiting_and_while_running(model_dir: Path) -> None:
    engine = await OnnxLlmEngine.start(replace(small(model_dir), slots=1))
    long = replace(GREEDY, max_tokens=250)
    running = asyncio.ensure_future(answer(engine, ids(5, 6, sampling=long)))
    with pytest.raises(DeadlineExceeded):
        await answer(engine, ids(7, 8), task(deadline_s=0.001))
    await running
    with pytest.raises(DeadlineExceeded):
        await answer(engine, ids(5, 6, sampling=long), task(deadline_s=0.02))
    assert (await answer(engine, ids(7, 8))).tokens == 12
    await engine.close()


async def test_a_better_class_is_seated_first(model_dir: Path) -> None:
    engine = await OnnxLlmEngine.start(replace(small(model_dir), slots=1))
    order: list[str] = []

    async def run(service_class: str) -> None:
        await answer(engine, ids(5, 6), task(service_class))
        order.append(service_class)

    async with asyncio.TaskGroup() as group:
        with held(engine) as began:
            group.create_task(answer(engine, ids(1, 2)))
            await until(began.is_set)
            for service_class in ("batch", "standard", "interactive"):
                group.create_task(run(service_class))
            await until(lambda: engine.load().running + engine.load().queued == 4)
    assert order == ["interactive", "standard", "batch"]
    await engine.close()


async def test_a_full_queue_refuses_at_once_and_says_when_to_return(model_dir: Path) -> None:
    engine = await OnnxLlmEngine.start(replace(small(model_dir), slots=1, queue_limit=2))
    with held(engine):
        pending = [asyncio.ensure_future(answer(engine, ids(5, number))) for number in range(3)]
        await until(lambda: engine.load().running + engine.load().queued == 3)
        with pytest.raises(QueueFull) as raised:
            await answer(engine, ids(9))
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s > 0
    assert [found.tokens for found in await asyncio.gather(*pending)] == [12] * 3
    await engine.close()


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (ids(*[5] * 250), PromptTooLong, "250 prompt tokens"),
        (ids(5, sampling=Sampling(max_tokens=300)), PromptTooLong, "max_tokens 300"),
        (LlmInput(), InvalidTask, "exactly one"),
        (LlmInput(prompt="a", messages=(ChatMessage("user", "b"),)), InvalidTask, "exactly one"),
        (LlmInput(messages=(ChatMessage("judge", "b"),)), InvalidTask, "unknown role"),
        (ids(288), InvalidTask, "between 0 and 287"),
        (ids(-1), InvalidTask, "between 0 and 287"),
        (ids(5, sampling=Sampling(temperature=-1)), InvalidTask, "temperature"),
        (ids(5, sampling=Sampling(json_schema="{")), InvalidTask, "schema"),
        (ids(5, sampling=Sampling(json_schema='{"type": "wombat"}')), InvalidTask, "schema"),
        (ids(5, sampling=Sampling(regex="(unclosed")), InvalidTask, "regex"),
        (ids(5, sampling=Sampling(regex="a", json_schema="{}")), InvalidTask, "not both"),
        (LlmInput(messages=()), InvalidTask, "empty one"),
        (ids(5, sampling=Sampling(top_p=0)), InvalidTask, "top_p"),
        (ids(5, sampling=Sampling(temperature=float("nan"))), InvalidTask, "temperature"),
        (ids(5, sampling=Sampling(logprobs=1000)), InvalidTask, "logprobs"),
    ],
)
async def test_bad_requests_are_refused_and_others_go_on(
    engine: OnnxLlmEngine, request_: LlmInput, kind: type[Exception], words: str
) -> None:
    expected = (await answer(engine, ids(3, 4))).text
    running = asyncio.ensure_future(answer(engine, ids(3, 4)))
    with pytest.raises(kind, match=words):
        await answer(engine, request_)
    assert (await running).text == expected
    await until_idle(engine)


async def test_a_long_text_is_counted_off_the_event_loop(engine: OnnxLlmEngine) -> None:
    with pytest.raises(PromptTooLong):
        await answer(engine, LlmInput(prompt="word " * 10_000, sampling=GREEDY))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kv_budget_bytes": 1000}, "one request may need"),
        ({"slots": 0}, "slots must be at least 1"),
        ({"stall_ratio": 0.0}, "stall_ratio"),
    ],
)
async def test_settings_that_cannot_work_are_refused_at_start(
    model_dir: Path, changes: dict[str, float], words: str
) -> None:
    with pytest.raises(EngineMisconfigured, match=words):
        await OnnxLlmEngine.start(replace(small(model_dir), **changes))  # type: ignore[arg-type]


async def test_a_missing_precision_is_named(model_dir: Path) -> None:
    with pytest.raises(NotFound, match=r"model-fp16\.onnx"):
        await OnnxLlmEngine.start(replace(small(model_dir), precision="fp16"))


# --------------------------------------------------------------------------------------------- life and memory


async def test_closing_fails_what_is_open_and_refuses_what_comes(model_dir: Path) -> None:
    engine = await OnnxLlmEngine.start(small(model_dir))
    long = replace(GREEDY, max_tokens=250)
    pending = [asyncio.ensure_future(answer(engine, ids(5, number, sampling=long))) for number in range(6)]
    while not engine.load().running:  # noqa: ASYNC110 - a figure to read, not an event to await
        await asyncio.sleep(0)
    await engine.close()
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(each, NodeUnavailable) for each in outcomes)
    with pytest.raises(NodeUnavailable):
        await answer(engine, ids(5))
    await engine.close()


async def test_a_broken_engine_fails_every_request_instead_of_hanging(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await OnnxLlmEngine.start(small(model_dir))

    def explode(*_: object) -> None:
        raise RuntimeError("kernel fault")

    monkeypatch.setattr(engine._steps._decoder, "decode", explode)
    outcomes = await asyncio.gather(*(answer(engine, ids(5, n)) for n in range(6)), return_exceptions=True)
    assert all(isinstance(each, Internal) and "kernel fault" in str(each) for each in outcomes[:4])
    assert all(isinstance(each, Internal | NodeUnavailable) for each in outcomes)
    with pytest.raises(NodeUnavailable):
        await answer(engine, ids(5))
    await engine.close()


async def test_memory_stays_bounded_over_many_requests(model_dir: Path) -> None:
    """Long and short requests one after the other: what a slot held is given back, not kept for each slot."""
    wide = replace(small(model_dir), slots=8, prefix_slots=2)
    engine = await OnnxLlmEngine.start(wide)

    async def wave(number: int) -> None:
        prompts = [[(number + place + who) % 280 for place in range(20 + 15 * who)] for who in range(8)]
        short = replace(GREEDY, max_tokens=3)
        await asyncio.gather(*(answer(engine, ids(*prompt, sampling=short)) for prompt in prompts))

    for number in range(10):
        await wave(number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(10, 60):
        await wave(number)
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    await until_idle(engine)
    assert grown_bytes < 8 << 20
    assert engine.load().kv_used == 0
    assert engine._steps._generations == {}
    await engine.close()
