"""How an engine whose prompts and answers take turns shares a turn of the prompts out.

The real engine (`skyshore/engines/llm`) and the model of it ask here, so that a modelled turn is a real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LEAST_CHUNK_TOKENS = 8
"""Below this a chunk costs nearly the same whatever it holds."""
CRUMB = 4
"""This part of a turn's prompt tokens is too little for a run of its own."""


def chunks(rests: Iterable[int], budget_tokens: int) -> Iterator[int]:
    """Tokens for each of the first few prompts, given what each still needs, in order.

    A run costs much by itself, so no prompt is begun or left with a crumb.
    """
    crumb, left = budget_tokens // CRUMB, budget_tokens
    for rest in rests:
        tokens = rest if rest <= left + crumb else left
        if left <= 0 or (tokens < rest and tokens <= crumb):
            return
        left -= tokens
        yield tokens
