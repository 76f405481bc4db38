"""The requests of OpenAI's API that this gateway answers, and their translation to the domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from skyshore.domain.llm import ChatMessage, LlmInput, Sampling

MAX_CHOICES = 16
"""Limit of answers per request: prompts times `n`."""
MAX_OUTPUT_TOKENS = 1_000_000
"""Limit of `max_tokens`: no known model writes more."""
DEFAULT_OUTPUT_TOKENS = 256

TokenId = Annotated[int, Field(ge=0, lt=2**32)]
Logit = Annotated[float, Field(ge=-2, le=2)]
OutputTokens = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)]


class TextPart(BaseModel):
    """A content part with text; other parts are not supported."""

    type: Literal["text"]
    text: str


class ChatRequestMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    def to_domain(self) -> ChatMessage:
        """The message with its parts joined. "developer" is OpenAI's newer name of the system role."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return ChatMessage("system" if self.role == "developer" else self.role, text)


class StreamOptions(BaseModel):
    """What a stream contains besides text."""

    include_usage: bool = False
    """End the stream with a chunk that has the usage and no choice."""
    continuous_usage_stats: bool = False
    """Add the usage so far to every chunk."""


class JsonSchema(BaseModel):
    """A named JSON schema."""

    name: str = ""
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    pattern: str | None = Field(None, min_length=1, max_length=4096, description="with type regex; not in OpenAI's API")

    @model_validator(mode="after")
    def _schema_is_there(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("response_format.json_schema is missing")
        if self.type == "regex" and self.pattern is None:
            raise ValueError("response_format.pattern is missing")
        return self

    def as_schema_text(self) -> str:
        """The schema as text; empty for free text."""
        if self.type == "json_object":
            return '{"type":"object"}'
        wanted = self.json_schema if self.type == "json_schema" else None
        return orjson.dumps(wanted.schema_).decode() if wanted else ""

    def as_regex(self) -> str:
        """The regular expression; empty for any other form."""
        return self.pattern or "" if self.type == "regex" else ""


class LlmRequest(BaseModel):
    """The fields that both request types have. Unknown fields are ignored, as clients of OpenAI expect."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str = Field("", max_length=256, description="a model of /v1/models; empty or 'auto' lets the policy choose")
    max_tokens: OutputTokens | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    presence_penalty: Logit | None = None
    frequency_penalty: Logit | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="not supported")
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="0 or -1 keeps every token")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def wanted_model(self) -> str:
        """Empty for any model."""
        return "" if self.model == "auto" else self.model

    @property
    def names_output_tokens(self) -> bool:
        """Whether the caller limited the answer. Our default limit shrinks to fit the context of the model."""
        return self.max_tokens is not None

    @property
    def options(self) -> StreamOptions:
        """Stream options with their defaults."""
        return self.stream_options or StreamOptions()

    def inputs(self) -> Iterator[LlmInput]:
        """One input per choice, in the order of the choices' indices."""
        raise NotImplementedError

    def _choices(self, prompt: LlmInput, first: int) -> Iterator[LlmInput]:
        """The same prompt `n` times. Each choice gets a different seed, or all would be equal."""
        for number in range(self.n or 1):
            if (number == 0 and first == 0) or self.seed is None:
                yield prompt
            else:
                # Wrap around within int64.
                seed = (self.seed + first + number + 2**63) % 2**64 - 2**63
                yield replace(prompt, sampling=replace(prompt.sampling, seed=seed))

    def _sampling(self, logprobs: int | None, max_tokens: int | None) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=max_tokens or DEFAULT_OUTPUT_TOKENS,
            temperature=_or(self.temperature, 1.0),
            top_p=_or(self.top_p, 1.0),
            top_k=max(0, self.top_k or 0),
            min_p=_or(self.min_p, 0.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            seed=self.seed,
            stop=tuple(word for word in stop if word),
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
            json_schema=self.response_format.as_schema_text() if self.response_format else "",
            regex=self.response_format.as_regex() if self.response_format else "",
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


class ChatRequest(LlmRequest):
    """POST /v1/chat/completions."""

    messages: list[ChatRequestMessage] = Field(min_length=1)
    max_completion_tokens: OutputTokens | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Any] | None = Field(None, max_length=0, description="not supported")

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self

    @property
    def names_output_tokens(self) -> bool:
        """See `LlmRequest.names_output_tokens`."""
        return self.max_tokens is not None or self.max_completion_tokens is not None

    def inputs(self) -> Iterator[LlmInput]:
        """See `LlmRequest.inputs`."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        sampling = self._sampling(logprobs, self.max_completion_tokens or self.max_tokens)
        turns = tuple(message.to_domain() for message in self.messages)
        yield from self._choices(LlmInput(messages=turns, sampling=sampling), 0)


class CompletionRequest(LlmRequest):
    """POST /v1/completions."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_CHOICES)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Literal[False] | None = Field(None, description="not supported")

    @model_validator(mode="after")
    def _choices_are_few(self) -> CompletionRequest:
        if len(self._prompts()) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"prompts times n is over {MAX_CHOICES}; send several requests")
        return self

    def inputs(self) -> Iterator[LlmInput]:
        """See `LlmRequest.inputs`."""
        sampling = self._sampling(self.logprobs, self.max_tokens)
        for number, prompt in enumerate(self._prompts()):
            form = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": tuple(prompt)}
            yield from self._choices(LlmInput(**form, sampling=sampling), number * (self.n or 1))

    def _prompts(self) -> list[str] | list[list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt
