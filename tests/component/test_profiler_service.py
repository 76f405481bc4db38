"""The profiler process over real gRPC: counts, predictions and complexity, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from services.profiler.app import load_tokenizer, profiler
from services.profiler.settings import ProfilerSettings
from services.profiler.tokens import ByteEstimate, PromptTokenizer
from skyshore.adapters.profiler_client import MuxProfilerClient
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import ready
from skyshore.domain.errors import InvalidMedia, InvalidTask
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.profile import TaskProfile
from skyshore.mux.client import MuxChannel
from tests.fakes.memory_store import MemoryStore
from tests.fakes.small_fleet import llm_task, outcome, video_task

HELLO = LlmInput(messages=(ChatMessage("user", "Why is the sky blue?"),), sampling=Sampling(max_tokens=64))


@asynccontextmanager
async def live(store, tokenizer: PromptTokenizer | None = None) -> AsyncIterator[MuxProfilerClient]:
    settings = ProfilerSettings(profiler_listen="127.0.0.1:0")
    async with profiler(settings, store, tokenizer or ByteEstimate()) as server:
        channel = MuxChannel(server.address)
        yield MuxProfilerClient(channel)
        await channel.close()


async def test_prompts_are_counted_by_the_models_own_tokenizer():
    try:
        folder = ready("smollm2-135m")
    except NotFetched as error:
        pytest.skip(str(error))
    tokenizer = Tokenizer.open(folder)
    async with live(MemoryStore(), tokenizer) as client:
        short = await client.profile_llm(llm_task("t1"), HELLO)
        assert short.prompt_tokens == len(tokenizer.encode_chat(HELLO.messages))
        text = "The quick brown fox. " * 2000  # beyond what is counted on the event loop
        long = await client.profile_llm(llm_task("t2"), LlmInput(prompt=text))
        assert long.prompt_tokens == len(tokenizer.encode(text))
        assert long.input_bytes == len(text)
        ids = await client.profile_llm(llm_task("t3"), LlmInput(prompt_token_ids=tuple(range(17))))
        assert ids.prompt_tokens == 17
        with pytest.raises(InvalidTask, match="role"):
            await client.profile_llm(llm_task("t4"), LlmInput(messages=(ChatMessage("bishop", "x"),)))


def test_without_model_files_prompt_tokens_are_estimated_with_a_warning(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SKYSHORE_MODELS", str(tmp_path))
    tokenizer = load_tokenizer("smollm2-135m")
    assert isinstance(tokenizer, ByteEstimate)
    assert "estimated" in capsys.readouterr().out
    assert len(tokenizer.encode("ab" * 50)) == 25


async def test_the_expected_length_is_learned_from_outcomes(valkey_url):
    store = RedisStore(valkey_url)
    asked = replace(HELLO, sampling=Sampling(max_tokens=1000))
    async with live(store) as client:
        before = await client.profile_llm(llm_task("t"), asked)
        assert 100 < before.expected_output_tokens < 140
        for number in range(60):
            await client.profile_llm(llm_task(f"t{number}"), asked)
        ended = [outcome(f"t{number}", "a/x", "a", worker=WorkerOutcome(output_tokens=10)) for number in range(60)]
        await store.append_outcomes(ended)
        async with asyncio.timeout(60):
            while True:
                after = await client.profile_llm(llm_task("again"), asked)
                if after.expected_output_tokens < 30:
                    break
                await asyncio.sleep(0.01)
        other = await client.profile_llm(llm_task("u", service_class="batch"), asked)
        assert other.expected_output_tokens == pytest.approx(before.expected_output_tokens)
    await store.close()


async def test_an_answer_forced_to_its_limit_is_expected_to_reach_it():
    forced = replace(HELLO, sampling=Sampling(max_tokens=77, ignore_eos=True))
    async with live(MemoryStore()) as client:
        assert (await client.profile_llm(llm_task(), forced)).expected_output_tokens == 77


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (LlmInput(messages=HELLO.messages, sampling=Sampling(max_tokens=0)), "max_tokens"),
    ],
)
async def test_what_cannot_be_counted_is_refused(request_, message):
    async with live(MemoryStore()) as client:
        with pytest.raises(InvalidTask, match=message):
            await client.profile_llm(llm_task(), request_)


async def test_a_busy_picture_is_more_complex_than_a_flat_one():
    facts = TaskProfile(frame_count=30, width=320, height=240, fps=25.0, input_bytes=1000)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
    async with live(MemoryStore()) as client:
        busy = await client.profile_video(video_task(), facts, noise.tobytes())
        flat = await client.profile_video(video_task(), facts, bytes(320 * 240))
    assert sum(busy.complexity) > sum(flat.complexity) == pytest.approx(0.0, abs=1e-9)
    assert replace(busy, complexity=(), compute_preference=0.5) == facts


async def test_video_tasks_are_told_apart_by_what_they_need_most():
    """The same picture under an accuracy that no edge model has, and under none to speak of."""
    facts = TaskProfile(frame_count=30, width=320, height=240, fps=25.0, input_bytes=1000)
    rows = np.linspace(40, 200, 240, dtype=np.uint8)
    ramp = np.repeat(rows[:, None], 320, axis=1).tobytes()
    async with live(MemoryStore()) as client:
        strict = await client.profile_video(video_task("a", min_quality=0.9, deadline_s=5.0), facts, ramp)
        lax = await client.profile_video(video_task("b", min_quality=0.2, deadline_s=5.0), facts, ramp)
    assert 0 <= lax.compute_preference < 0.5 < strict.compute_preference <= 1


@pytest.mark.parametrize(("width", "height", "size"), [(320, 240, 100), (0, 0, 0), (20_000, 20_000, 10)])
async def test_a_plane_that_is_none_is_refused(width, height, size):
    facts = TaskProfile(frame_count=1, width=width, height=height)
    async with live(MemoryStore()) as client:
        with pytest.raises(InvalidMedia):
            await client.profile_video(video_task(), facts, bytes(size))


async def test_profiles_are_made_while_the_store_is_away():
    store = MemoryStore(reachable=False)
    async with live(store) as client:
        assert (await client.profile_llm(llm_task(), HELLO)).prompt_tokens > 0
