"""What an LLM task carries: the prompt, how to sample, and the chunks that come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled and when generation ends."""

    max_tokens: int = 256
    """Upper bound on generated tokens."""
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means no limit."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """Number of alternatives to report per token; None means no log-probabilities at all."""
    json_schema: str = ""
    """JSON schema (as text) the answer must satisfy; empty means free text."""
    regex: str = ""
    """Regular expression the whole answer must match; empty means free text. Not beside `json_schema`."""


@dataclass(frozen=True, slots=True)
class LlmInput:
    """A prompt in exactly one of three forms: messages, text or token ids."""

    messages: tuple[ChatMessage, ...] = ()
    prompt: str = ""
    prompt_token_ids: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


class FinishReason(StrEnum):
    """Why an answer ended; the values are the ones OpenAI's clients expect."""

    STOP = "stop"
    LENGTH = "length"


class TopLogprob(NamedTuple):
    """A likely token and the natural logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one generated token, with the likeliest alternatives."""

    token: str
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens that became available together. `text` never ends inside a UTF-8 character."""

    text: str
    token_count: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    """Set on the last chunk only."""
    prompt_tokens: int = 0
    """Set on the last chunk only."""
    cached_tokens: int = 0
    """Prompt tokens served from the prefix cache; set on the last chunk only."""
