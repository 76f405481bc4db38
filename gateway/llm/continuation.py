"""Goes on with an answer on another node: the same request is computed again, and what the caller has is left out.

An answer is a function of its request and its task id (see `skyshore.engines.llm.sampling`). So the second node
computes the same tokens, with its stop strings, schema, penalties and log-probabilities, and needs no state of the
first one. What it computes is compared with what was sent. If it differs, the caller gets an error. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from skyshore.domain.llm import TokenChunk


class Diverged(Exception):
    """The answer of the second node is not the one that the caller has begun to read."""


@dataclass(slots=True)
class Sent:
    """What the caller has of an answer."""

    parts: list[str] = field(default_factory=list)
    tokens: int = 0
    logprobs: int = 0
    is_complete: bool = False
    """The chunk with the finish reason was sent."""

    def add(self, chunk: TokenChunk) -> None:
        """A chunk is handed to the caller."""
        self.parts.append(chunk.text)
        self.tokens += chunk.token_count
        self.logprobs += len(chunk.logprobs)
        self.is_complete = chunk.finish_reason is not None


class Continuation:
    """Takes the chunks of the second node and returns those that are new to the caller."""

    def __init__(self, sent: Sent) -> None:
        self._text, self._tokens, self._logprobs = "".join(sent.parts), sent.tokens, sent.logprobs
        self._is_complete = sent.is_complete

    def take(self, chunk: TokenChunk) -> TokenChunk | None:
        """The new part of the next chunk, or None.

        Raises:
            Diverged: the text differs from the one that was sent, or ends before it.
        """
        known = min(len(chunk.text), len(self._text))
        if chunk.text[:known] != self._text[:known]:
            raise Diverged
        self._text = self._text[known:]
        if chunk.finish_reason and self._text:
            raise Diverged
        tokens, logprobs = min(chunk.token_count, self._tokens), min(len(chunk.logprobs), self._logprobs)
        self._tokens, self._logprobs = self._tokens - tokens, self._logprobs - logprobs
        rest = TokenChunk(
            chunk.text[known:],
            chunk.token_count - tokens,
            chunk.logprobs[logprobs:],
            chunk.finish_reason,
            chunk.prompt_tokens,
            chunk.cached_tokens,
        )
        is_new = bool(rest.text or rest.token_count or rest.finish_reason)
        return rest if is_new and not self._is_complete else None
