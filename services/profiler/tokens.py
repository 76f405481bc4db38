"""How many tokens a prompt has: counted by the model's own tokenizer, or, when there is none, guessed and said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skyshore.domain.llm import ChatMessage, LlmInput

BYTES_PER_TOKEN = 4
"""Of the guess: English text under a vocabulary of some 50,000."""
TOKENS_PER_TURN = 5
"""Of the guess: what a chat template adds to each turn."""


class PromptTokenizer(Protocol):
    """What counting needs of a tokenizer."""

    def count_chat(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of a conversation under the model's chat template, up to where the answer begins."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of a text."""
        ...


class ByteGuess:
    """Stands in when no model files are here: a token for every four bytes."""

    def count_chat(self, messages: Sequence[ChatMessage]) -> int:
        """Guess of `PromptTokenizer.count_chat`."""
        return sum(self._guess(turn.content) + TOKENS_PER_TURN for turn in messages) + TOKENS_PER_TURN

    def encode(self, text: str) -> Sequence[int]:
        """As many ids as the guess says; their values mean nothing."""
        return range(self._guess(text))

    def _guess(self, text: str) -> int:
        return -(-len(text.encode()) // BYTES_PER_TOKEN)


def prompt_bytes(request: LlmInput) -> int:
    """Bytes of the prompt as it travels to a node."""
    if request.messages:
        return sum(len(turn.role) + len(turn.content.encode()) for turn in request.messages)
    return len(request.prompt.encode()) or BYTES_PER_TOKEN * len(request.prompt_token_ids)


def count_tokens(tokenizer: PromptTokenizer, request: LlmInput) -> int:
    """Tokens of the prompt, whatever its form."""
    if request.prompt_token_ids:
        return len(request.prompt_token_ids)
    if request.messages:
        return tokenizer.count_chat(request.messages)
    return len(tokenizer.encode(request.prompt))
