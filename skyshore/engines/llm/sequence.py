"""One request as the step scheduler sees it: tokens, how far they are computed, and its rank among the others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Resident:
    """Something that occupies a cache slot."""

    tokens: list[int]
    computed: int = 0
    """How many of `tokens` the slot holds keys and values of."""
    slot: int = -1
    """-1 while it occupies none."""
    reserved_tokens: int = 0
    """Cache set aside for it, in whole granules."""


@dataclass(slots=True, eq=False)
class Sequence(Resident):
    """A request: its prompt, then what was generated."""

    request_id: int = 0
    prompt_tokens: int = 0
    priority: int = 0
    """Larger goes first."""
    deadline_s: float = 0.0
    """Deadline on the engine's clock, in seconds."""
    arrival: int = 0
    """Order of arrival; breaks ties."""
    cached_tokens: int = field(default=0)
    """Prompt tokens that were copied instead of computed, at the first admission."""

    @property
    def rank(self) -> tuple[int, float, int]:
        """Smaller is served first and preempted last."""
        return (-self.priority, self.deadline_s, self.arrival)

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt is in the cache."""
        return self.computed >= self.prompt_tokens

    @property
    def wants_token(self) -> bool:
        """Whether everything known is computed, so that the last run's logits give the next token."""
        return self.computed == len(self.tokens)

    @property
    def shareable_tokens(self) -> int:
        """How much of the cache another request may copy.

        Only the prompt: its keys and values come from prefill runs, whose results do not depend on how a prompt was
        cut. Those of generated tokens come from decode runs, which round differently, and an answer would then depend
        on what happened to be cached.
        """
        return min(self.computed, self.prompt_tokens)
