"""How an engine whose prompts and answers take turns divides a turn among the prompts.

The real engine (`skyshore/engines/llm`) and its model both use this, so that their turns are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE

LEAST_CHUNK_TOKENS = 8
"""A chunk of fewer tokens takes nearly the same time."""
MIN_CHUNK_FRACTION = 4
"""A part of 1/4 of a turn's prompt tokens is too little for a run of its own."""


@kernel
def chunk_share(rest: int, left: int, budget_tokens: int) -> int:
    """Tokens, of the `left` ones of a turn, for a prompt that still needs `rest`; NONE when the turn is over.

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
