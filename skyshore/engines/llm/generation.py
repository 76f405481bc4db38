"""The answer of one request while it is generated: text, log-probabilities, finish reason and cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.llm import FinishReason, Sampling, TokenChunk, TokenLogprob, TopLogprob
from skyshore.domain.outcome import WorkerOutcome
from skyshore.engines.llm.constraint import Constraint
from skyshore.engines.llm.sampling import RowSampler, logprobs
from skyshore.engines.llm.sequence import Sequence
from skyshore.engines.llm.text import TextStream


@dataclass(slots=True)
class Timing:
    """Times on the engine's clock, in seconds; 0 until the event."""

    arrived_s: float = 0.0
    seated_s: float = 0.0
    first_token_s: float = 0.0


@dataclass(slots=True, eq=False)
class Generation:
    """State of one request on the engine thread, besides its place in the schedule."""

    sequence: Sequence
    sampler: RowSampler
    text: TextStream
    constraint: Constraint | None
    vocabulary: list[bytes]
    """The bytes of every token id."""
    end_tokens: frozenset[int]
    timing: Timing
    finish_reason: FinishReason | None = None
    _unsent_tokens: int = 0
    _unsent_logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def sampling(self) -> Sampling:
        """What the caller asked for."""
        return self.sampler.sampling

    @property
    def output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.sequence.tokens) - self.sequence.prompt_tokens

    @property
    def needs_logits(self) -> bool:
        """Whether the arg-max inside the graph is not enough."""
        return not self.sampler.plain_greedy or self.constraint is not None or self.sampling.logprobs is not None

    def accept(self, token: int, raw_logits: NDArray[np.float32]) -> TokenChunk | None:
        """Append a token; a chunk comes back when there is text to send or the answer is complete.

        Raises:
            Internal: the constraint on the answer failed.
        """
        self.sequence.tokens.append(token)
        self.sampler.note(token)
        self._unsent_tokens += 1
        complete = self.constraint.accept(token) if self.constraint else False
        ended = token in self.end_tokens and not self.sampling.ignore_eos
        if self.sampling.logprobs is not None and not ended:
            self._unsent_logprobs.append(self._describe(token, raw_logits))
        text = "" if ended else self.text.push(self.vocabulary[token])
        if ended or complete or self.text.stopped:
            self.finish_reason = FinishReason.STOP
        elif self.output_tokens >= self.sampling.max_tokens:
            self.finish_reason = FinishReason.LENGTH
        return self._chunk(text)

    def _chunk(self, text: str) -> TokenChunk | None:
        last = self.finish_reason is not None
        if last:
            text += self.text.finish()
        if not text and not last:
            return None
        chunk = TokenChunk(
            text=text,
            token_count=self._unsent_tokens,
            logprobs=tuple(self._unsent_logprobs),
            finish_reason=self.finish_reason,
            prompt_tokens=self.sequence.prompt_tokens if last else 0,
            cached_tokens=self.sequence.cached_tokens if last else 0,
        )
        self._unsent_tokens = 0
        self._unsent_logprobs = []
        return chunk

    def _describe(self, token: int, raw_logits: NDArray[np.float32]) -> TokenLogprob:
        own, likeliest = logprobs(raw_logits, token, self.sampling.logprobs or 0)
        top = tuple(TopLogprob(self._spell(other), value) for other, value in likeliest)
        return TokenLogprob(self._spell(token), own, top)

    def _spell(self, token: int) -> str:
        return self.vocabulary[token].decode("utf-8", errors="replace")

    def outcome(self, now_s: float) -> WorkerOutcome:
        """What the request cost, up to `now_s`."""
        timing = self.timing
        return WorkerOutcome(
            queue_s=timing.seated_s - timing.arrived_s,
            prefill_s=timing.first_token_s - timing.seated_s,
            compute_s=now_s - timing.first_token_s,
            prompt_tokens=self.sequence.prompt_tokens,
            cached_tokens=self.sequence.cached_tokens,
            output_tokens=self.output_tokens,
        )
