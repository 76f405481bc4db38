"""How an engine whose prompts and answers take turns shares a turn of the prompts out.

The real engine (`skyshore/engines/llm`) and the model of it ask here, so that a modelled turn is a real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE

LEAST_CHUNK_TOKENS = 8
"""Below this a chunk costs nearly the same whatever it holds."""
MIN_CHUNK_FRACTION = 4
"""A part of 1/4 of a turn's prompt tokens is too little for a run of its own."""


@kernel
def chunk_share(rest: int, left: int, budget_tokens: int) -> int:
    """Tokens of a turn for a prompt that still needs `rest`, of the `left` ones; NONE where the turn is over.

    A run costs much by itself, so no prompt is begun or left with less than 1/MIN_CHUNK_FRACTION of the turn.
    """
    least = budget_tokens // MIN_CHUNK_FRACTION
    tokens = rest if rest <= left + least else left
    return NONE if left <= 0 or (tokens < rest and tokens <= least) else tokens


def chunks(rests: Iterable[int], budget_tokens: int) -> Iterator[int]:
    """Tokens for each of the first few prompts, given what each still needs, in order."""
    left = budget_tokens
    for rest in rests:
        tokens = chunk_share(rest, left, budget_tokens)
        if tokens == NONE:
            return
        left -= tokens
        yield tokens
