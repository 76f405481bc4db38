"""Counts the tokens of a prompt with the tokenizer of a model, or estimates them if there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skyshore.domain.llm import ChatMessage, LlmInput

BYTES_PER_TOKEN = 4
"""Estimate for English text and a vocabulary of about 50,000 tokens."""
TOKENS_PER_TURN = 5
"""Estimate of the tokens that a chat template adds to each turn."""


class PromptTokenizer(Protocol):
    """The methods of a tokenizer that counting needs."""

    def count_chat(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of a conversation under the model's chat template, up to the start of the answer."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of a text."""
        ...


class ByteEstimate:
    """Estimates one token per four bytes, for a machine without model files."""

    def count_chat(self, messages: Sequence[ChatMessage]) -> int:
        """Estimate of `PromptTokenizer.count_chat`."""
        return sum(self._estimate(turn.content) + TOKENS_PER_TURN for turn in messages) + TOKENS_PER_TURN

    def encode(self, text: str) -> Sequence[int]:
        """As many ids as estimated. Their values have no meaning."""
        return range(self._estimate(text))

    def _estimate(self, text: str) -> int:
        return -(-len(text.encode()) // BYTES_PER_TOKEN)


def prompt_bytes(request: LlmInput) -> int:
    """Bytes of the prompt as it is sent to a node."""
    if request.messages:
        return sum(len(turn.role) + len(turn.content.encode()) for turn in request.messages)
    return len(request.prompt.encode()) or BYTES_PER_TOKEN * len(request.prompt_token_ids)


def count_tokens(tokenizer: PromptTokenizer, request: LlmInput) -> int:
    """Tokens of the prompt: a text, a conversation or token ids."""
    if request.prompt_token_ids:
        return len(request.prompt_token_ids)
    if request.messages:
        return tokenizer.count_chat(request.messages)
    return len(tokenizer.encode(request.prompt))
