"""OpenAI's JSON, both ways: an LlmInput into a request body, streamed chunks and errors into domain values."""

from __future__ import annotations

import json
from typing import Any

from skyshore.domain.errors import (
    Internal,
    InvalidTask,
    NodeUnavailable,
    NotFound,
    PromptTooLong,
    QueueFull,
    SkyshoreError,
)
from skyshore.domain.llm import FinishReason, LlmInput, TokenLogprob, TopLogprob

DEFAULTS = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": False}
"""Fields OpenAI itself does not know. They are sent only when they differ, for servers (vLLM, llama.cpp) that do."""

BY_STATUS: dict[int, type[SkyshoreError]] = {
    400: InvalidTask,
    404: NotFound,
    413: InvalidTask,
    422: InvalidTask,
    502: NodeUnavailable,
    503: NodeUnavailable,
    504: NodeUnavailable,
}


def request_body(model: str, request: LlmInput) -> tuple[str, dict[str, Any]]:
    """Path below the base URL, and the body.

    Raises:
        InvalidTask: log-probabilities of a bare prompt, whose shape differs between servers.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    body |= {name: getattr(sampling, name) for name, value in DEFAULTS.items() if getattr(sampling, name) != value}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema:
        schema = {"name": "answer", "strict": True, "schema": json.loads(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if sampling.regex:
        raise InvalidTask("this engine's protocol knows no regex; use a JSON schema", param="response_format")
    if request.messages:
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        if sampling.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        return "/chat/completions", body
    if sampling.logprobs is not None:
        raise InvalidTask("log-probabilities need chat messages on this engine", param="logprobs")
    body["prompt"] = list(request.prompt_token_ids) or request.prompt
    return "/completions", body


def chunk_text(choice: dict[str, Any]) -> str:
    """The text of one streamed choice, chat or plain."""
    return str((choice.get("delta") or {}).get("content") or choice.get("text") or "")


def chunk_logprobs(choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of one streamed chat choice."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple(TopLogprob(rival["token"], rival["logprob"]) for rival in entry.get("top_logprobs") or ()),
        )
        for entry in content
    )


def finish_reason(choice: dict[str, Any]) -> FinishReason | None:
    """Why it ended, once it has."""
    reason = choice.get("finish_reason")
    if reason is None:
        return None
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP


def failure(status: int, body: str, retry_after: str | None) -> SkyshoreError:
    """The domain error behind an HTTP status and an error body."""
    word, message = _error_fields(body)
    said = f"the upstream server says: {message or f'status {status}'}"
    if word == "context_length_exceeded" or (status == 400 and "context length" in message):
        return PromptTooLong(said, param="messages")
    if status == 429:
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else 1.0
        return QueueFull(said, retry_after_s=wait_s)
    if status in (401, 403):
        said = f"{said}; set SKYSHORE_NODE_UPSTREAM_KEY on the node"
    return BY_STATUS.get(status, Internal)(said)


def _error_fields(body: str) -> tuple[str, str]:
    try:
        error = json.loads(body)
    except ValueError:
        return "", body[:300]
    if isinstance(error, dict):
        error = error.get("error", error)
    if not isinstance(error, dict):
        return "", str(error)[:300]
    return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
