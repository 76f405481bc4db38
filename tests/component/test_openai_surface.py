"""What OpenAI's own client can ask of a gateway with the real engine behind it, feature by feature."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.llama.build import build
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings
from skyshore.wire.pairs import LLM_EVENT, LLM_INPUT, TASK
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf
from tests.fakes.gateway_services import FakeNode, world

openai = pytest.importorskip("openai", reason="the openai client is not installed")

HELLO = [{"role": "user", "content": "Hello there"}]
GREEDY = {"model": "tiny", "temperature": 0, "extra_body": {"ignore_eos": True}}
FREE = {**GREEDY, "extra_body": {}}


@dataclass
class RealNode(FakeNode):
    """A node that is only a shell around the engine."""

    engine: OnnxLlmEngine | None = None

    async def Execute(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        assert self.engine
        async for event in self.engine.generate(TASK.from_proto(request.task), LLM_INPUT.from_proto(request.llm)):
            yield LLM_EVENT.to_proto(event)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    source = write_tiny_gguf(
        folder / "model.gguf", TinyLlama(hidden=128, ffn=192, heads=4, kv_heads=1, head_dim=64, seed=3)
    )
    build(source, folder, "fp32")
    return folder


@pytest.fixture
async def client(model_dir: Path, tmp_path: Path) -> AsyncIterator[Any]:
    engine = await OnnxLlmEngine.start(LlmEngineSettings(model_dir, precision="fp32", slots=4, context_tokens=512))
    async with world(tmp_path, RealNode("n", context_tokens=512, engine=engine)) as w:
        made = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none", max_retries=0)
        yield made
        await made.close()
    await engine.close()


async def test_max_completion_tokens_bounds_the_answer(client: Any) -> None:
    for name in ("max_completion_tokens", "max_tokens"):
        reply = await client.chat.completions.create(messages=HELLO, **GREEDY, **{name: 7})
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 7


async def test_ignore_eos_goes_on_to_the_limit(client: Any) -> None:
    short = await client.chat.completions.create(
        messages=HELLO, **FREE, max_tokens=40, response_format={"type": "regex", "pattern": "a{0,2}"}
    )
    assert short.choices[0].finish_reason == "stop"
    forced = await client.chat.completions.create(messages=HELLO, **GREEDY, max_tokens=40)
    assert forced.choices[0].finish_reason == "length"
    assert forced.usage.completion_tokens == 40


async def test_n_gives_that_many_choices_and_counts_the_prompt_once(client: Any) -> None:
    one = await client.chat.completions.create(messages=HELLO, **GREEDY, max_tokens=5)
    drawn = {**GREEDY, "temperature": 1.5}
    three = await client.chat.completions.create(messages=HELLO, **drawn, max_tokens=5, n=3, seed=11)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in three.choices}) > 1
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 15
    again = await client.chat.completions.create(messages=HELLO, **drawn, max_tokens=5, n=3, seed=11)
    assert [c.message.content for c in again.choices] == [c.message.content for c in three.choices]


async def test_logprobs_of_chat_and_of_completions(client: Any) -> None:
    chat = await client.chat.completions.create(messages=HELLO, **GREEDY, max_tokens=4, logprobs=True, top_logprobs=3)
    entries = chat.choices[0].logprobs.content
    assert len(entries) == 4
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert bytes(entry.bytes).decode() == entry.token
    plain = await client.completions.create(prompt="Hello", **GREEDY, max_tokens=4, logprobs=2)
    found = plain.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 4
    assert all(len(top) <= 2 for top in found.top_logprobs)


async def test_response_format_json_schema_object_and_regex(client: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "digit", "schema": schema}}
    drawn = {**FREE, "temperature": 1.2, "seed": 5, "max_tokens": 120}
    reply = await client.chat.completions.create(messages=HELLO, **drawn, response_format=asked)
    assert 0 <= json.loads(reply.choices[0].message.content)["n"] <= 9
    code = {"type": "regex", "pattern": "[A-C]{2}[0-9]"}
    reply = await client.chat.completions.create(messages=HELLO, **drawn, response_format=code)
    assert re.fullmatch("[A-C]{2}[0-9]", reply.choices[0].message.content)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(messages=HELLO, **drawn, response_format={**code, "pattern": "(["})
    assert caught.value.param == "response_format"
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(messages=HELLO, **drawn, response_format={"type": "regex"})


async def test_stream_options_usage_at_the_end_and_in_every_chunk(client: Any) -> None:
    async def chunks(**options: bool) -> list[Any]:
        stream = await client.chat.completions.create(
            messages=HELLO, **GREEDY, max_tokens=6, stream=True, stream_options=options
        )
        return [chunk async for chunk in stream]

    ending = await chunks(include_usage=True)
    assert ending[-1].choices == []
    assert ending[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in ending[:-1])
    running = [chunk.usage.completion_tokens for chunk in await chunks(continuous_usage_stats=True)]
    assert running == sorted(running)
    assert running[-1] == 6
    assert len(set(running)) > 1


async def test_token_id_prompts_and_lists_of_prompts_on_completions(client: Any, model_dir: Path) -> None:
    tokens = Tokenizer.open(model_dir).encode("Hello there")
    by_text = await client.completions.create(prompt="Hello there", **GREEDY, max_tokens=6)
    by_ids = await client.completions.create(prompt=tokens, **GREEDY, max_tokens=6)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.usage.prompt_tokens == len(tokens)
    both = await client.completions.create(prompt=[tokens, tokens[:3]], **GREEDY, max_tokens=6)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == by_text.choices[0].text
    assert both.usage.prompt_tokens == len(tokens) + 3


async def test_usage_names_the_prompt_tokens_that_came_from_the_cache(client: Any) -> None:
    prompt = list(range(5, 205))
    first = await client.completions.create(prompt=prompt, **GREEDY, max_tokens=2)
    second = await client.completions.create(prompt=[*prompt, 7, 9], **GREEDY, max_tokens=2)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens >= 192
    assert second.usage.prompt_tokens == 202


async def test_errors_are_openais_own_classes_and_objects(client: Any) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any], str | None]] = [
        (openai.NotFoundError, {"model": "nobody"}, "model"),
        (openai.BadRequestError, {"temperature": 9}, "temperature"),
        (openai.BadRequestError, {"max_tokens": 100_000}, "max_tokens"),
        (openai.BadRequestError, {"messages": []}, "messages"),
        (openai.BadRequestError, {"messages": [{"role": "bishop", "content": "x"}]}, "messages"),
        (openai.BadRequestError, {"top_logprobs": 3}, None),
    ]
    for kind, change, param in wrong:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**{"messages": HELLO, **GREEDY, **change})
        body = caught.value.body
        assert set(body) == {"message", "type", "code", "param"}, change
        assert param is None or str(caught.value.param).startswith(param), change
