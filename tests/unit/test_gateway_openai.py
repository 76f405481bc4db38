"""OpenAI's words in and out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import error_headers, error_object, invalid_task
from gateway.llm.openai_reply import ChatReply, CompletionChoice, CompletionReply, usage_of
from gateway.llm.openai_schema import MAX_CHOICES, ChatRequest, CompletionRequest
from gateway.video.schema import DetectFields
from skyshore.domain.errors import NodeUnavailable, PromptTooLong, QueueFull
from skyshore.domain.llm import ChatMessage, FinishReason, TokenChunk, TokenLogprob

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}))


def completion(prompt: Any, **fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate_json(json.dumps({"prompt": prompt, **fields}))


def complaint(error: ValidationError) -> str | None:
    return invalid_task(error.errors()).param


def test_parts_are_joined_and_developer_is_system() -> None:
    request = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None},
        ]
    )
    (prompt,) = request.inputs()
    assert prompt.messages == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "ab"),
        ChatMessage("assistant", ""),
    )


def test_null_means_not_said() -> None:
    names = ("max_tokens", "temperature", "top_p", "n", "stream", "stop", "seed", "logprobs", "response_format")
    (plain,) = chat().inputs()
    (nulls,) = chat(**dict.fromkeys(names)).inputs()
    assert plain == nulls


def test_unknown_fields_are_ignored_and_auto_means_any_model() -> None:
    assert chat(user="me", metadata={"a": 1}, parallel_tool_calls=True, model="auto").wanted_model == ""
    assert chat(model="tiny").wanted_model == "tiny"


@given(seed=st.integers(-(2**63), 2**63 - 1), n=st.integers(1, MAX_CHOICES))
def test_every_choice_has_its_own_seed_inside_64_bits(seed: int, n: int) -> None:
    seeds = [prompt.sampling.seed for prompt in chat(seed=seed, n=n).inputs()]
    assert seeds[0] == seed
    assert len(set(seeds)) == n
    assert all(-(2**63) <= each < 2**63 for each in seeds if each is not None)


def test_choices_of_several_prompts_come_prompt_by_prompt() -> None:
    prompts = [prompt.prompt for prompt in completion(["a", "b"], n=2).inputs()]
    assert prompts == ["a", "a", "b", "b"]
    seeds = [prompt.sampling.seed for prompt in completion(["a", "b"], n=2, seed=7).inputs()]
    assert seeds == [7, 8, 9, 10]


def test_too_many_choices_are_refused() -> None:
    with pytest.raises(ValidationError, match="over 16"):
        completion(["a"] * 9, n=2)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | TEXT, st.lists, max_leaves=5))
def test_any_prompt_is_taken_or_refused_but_never_breaks(prompt: Any) -> None:
    try:
        request = completion(prompt)
    except ValidationError as error:
        assert (complaint(error) or "prompt").startswith("prompt")
    else:
        assert len(list(request.inputs())) >= 1


def test_schema_of_the_answer_is_handed_on_as_text() -> None:
    schema = {"type": "object", "properties": {"tide": {"type": "number"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (prompt,) = chat(response_format=wanted).inputs()
    assert json.loads(prompt.sampling.json_schema) == schema
    (plain,) = chat(response_format={"type": "text"}).inputs()
    assert plain.sampling.json_schema == ""


@given(st.lists(st.tuples(TEXT, st.integers(1, 4)), min_size=1, max_size=6))
def test_stream_and_whole_answer_say_the_same(parts: list[tuple[str, int]]) -> None:
    chunks = [TokenChunk(text, count, (TokenLogprob(text, -1.0),)) for text, count in parts]
    chunks.append(TokenChunk("", 0, (), FinishReason.STOP, 9, 4))
    for reply in (ChatReply, CompletionReply):
        choice, streamed, offsets = CompletionChoice(0), "", []
        for chunk in chunks:
            delta = reply.delta(choice, chunk)
            streamed += delta["text"] if reply is CompletionReply else delta["delta"].get("content", "")
            offsets += (delta["logprobs"] or {}).get("text_offset", [])
            choice.add(chunk)
        whole = reply.choice(choice)
        assert streamed == (whole["text"] if reply is CompletionReply else whole["message"]["content"])
        assert whole["finish_reason"] == "stop"
        if reply is CompletionReply:
            assert whole["logprobs"]["text_offset"] == offsets
    usage = usage_of([choice], prompts=1)
    assert usage["completion_tokens"] == sum(count for _, count in parts)
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (9, 4)


def test_usage_counts_each_prompt_once() -> None:
    choices = [CompletionChoice(index, prompt_tokens=10 + index // 2, output_tokens=1) for index in range(4)]
    assert usage_of(choices, prompts=2)["prompt_tokens"] == 10 + 11
    assert usage_of(choices, prompts=2)["total_tokens"] == 25


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (PromptTooLong("too long", param="messages"), "invalid_request_error", "context_length_exceeded"),
        (QueueFull("full"), "rate_limit_error", "queue_full"),
        (NodeUnavailable("gone"), "server_error", "node_unavailable"),
    ],
)
def test_errors_have_openais_shape(error: Any, kind: str, code: str) -> None:
    body = error_object(error)["error"]
    assert (body["type"], body["code"], body["param"]) == (kind, code, error.param)


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    assert error_headers(QueueFull("full", retry_after_s=0.1)) == {"retry-after": "1"}
    assert error_headers(QueueFull("full", retry_after_s=2.01)) == {"retry-after": "3"}
    assert error_headers(QueueFull("full")) == {}


def test_form_fields_are_read_as_text() -> None:
    fields = DetectFields.model_validate({"classes": "person, car,", "deadline_s": "2.5", "class": "batch"})
    assert (fields.classes, fields.deadline_s, fields.service_class) == (["person", "car"], 2.5, "batch")
    assert DetectFields.model_validate({"classes": ["dog"]}).classes == ["dog"]
