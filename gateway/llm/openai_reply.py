"""The response bodies of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyshore.domain.llm import FinishReason, TokenChunk, TokenLogprob


@dataclass(slots=True)
class CompletionChoice:
    """One answer, as far as it has arrived."""

    index: int
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    length: int = 0
    """Characters so far: the offset of the next token's text."""

    def add(self, chunk: TokenChunk) -> None:
        """Append the next tokens."""
        self.text.append(chunk.text)
        self.length += len(chunk.text)
        self.logprobs.extend(chunk.logprobs)
        self.output_tokens += chunk.token_count
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
            self.prompt_tokens, self.cached_tokens = chunk.prompt_tokens, chunk.cached_tokens


def usage_of(choices: Iterable[CompletionChoice], prompts: int) -> dict[str, Any]:
    """Tokens of all choices. The tokens of a prompt count once for its `n` choices, as in OpenAI's API."""
    choices = list(choices)
    per_prompt = max(1, len(choices) // max(1, prompts))
    prompt = sum(choice.prompt_tokens for choice in choices[::per_prompt])
    output = sum(choice.output_tokens for choice in choices)
    cached = sum(choice.cached_tokens for choice in choices[::per_prompt])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class ChatReply:
    """Shapes of /v1/chat/completions."""

    complete = "chat.completion"
    part = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    @staticmethod
    def delta(choice: CompletionChoice, chunk: TokenChunk) -> dict[str, Any]:
        """The part of a stream for `chunk`. Call it before `choice.add(chunk)`."""
        delta = {"content": chunk.text} if chunk.text else {}
        if not choice.output_tokens:
            delta = {"role": "assistant", "content": chunk.text}
        return {
            "index": choice.index,
            "delta": delta,
            "logprobs": _chat_logprobs(chunk.logprobs),
            "finish_reason": chunk.finish_reason,
        }

    @staticmethod
    def choice(choice: CompletionChoice) -> dict[str, Any]:
        """A complete choice."""
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
            "logprobs": _chat_logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }


class CompletionReply:
    """Shapes of /v1/completions."""

    complete = "text_completion"
    part = "text_completion"
    id_prefix = "cmpl-"

    @staticmethod
    def delta(choice: CompletionChoice, chunk: TokenChunk) -> dict[str, Any]:
        """See `ChatReply.delta`."""
        return {
            "index": choice.index,
            "text": chunk.text,
            "logprobs": _text_logprobs(chunk.logprobs, choice.length),
            "finish_reason": chunk.finish_reason,
        }

    @staticmethod
    def choice(choice: CompletionChoice) -> dict[str, Any]:
        """See `ChatReply.choice`."""
        return {
            "index": choice.index,
            "text": "".join(choice.text),
            "logprobs": _text_logprobs(choice.logprobs, 0),
            "finish_reason": choice.finish_reason,
        }


Reply = type[ChatReply] | type[CompletionReply]


def _chat_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not logprobs:
        return None

    def entry(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    content = [
        {**entry(lp.token, lp.logprob), "top_logprobs": [entry(token, value) for token, value in lp.top]}
        for lp in logprobs
    ]
    return {"content": content, "refusal": None}


def _text_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
    if not logprobs:
        return None
    offsets = []
    for lp in logprobs:
        offsets.append(offset)
        offset += len(lp.token)
    return {
        "tokens": [lp.token for lp in logprobs],
        "token_logprobs": [lp.logprob for lp in logprobs],
        "top_logprobs": [dict(lp.top) for lp in logprobs],
        "text_offset": offsets,
    }
