"""The engine's limits over a tiny random model: cancellation, deadlines, queues, bad input, closing and memory."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NodeUnavailable,
    NotFound,
    PromptTooLong,
    QueueFull,
)
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.errors import EngineMisconfigured
from tests.fakes.tiny_llm_engine import GREEDY, answer, build_tiny_model, held, ids, small, task, until, until_idle


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def engine(model_dir: Path) -> AsyncIterator[OnnxLlmEngine]:
    made = await OnnxLlmEngine.start(small(model_dir))
    yield made
    await made.close()


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
