"""Prompt text of a given length in tokens. Prompts share prefixes as the block ids of a trace say."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from skyshore.workload.arrival import Arrival

_VOCABULARY = """
about after again air all also always and any around ask away back been before began being below big book both
boy came can car change city close cold come could cut day did do does done door down each earth eat end enough
even every eye face family far father feel few find fire first fish five follow food foot for form found four
friend from full game gave get girl give go good got great green ground group grow had half hand hard has have
he head hear help her here high him his hold home horse hot hour house how idea if in inch into is it its just
keep kind king knew know land large last late learn leave left less let letter life light like line list listen
little live long look low made make man many map may me mean men might mile mind money moon more most mother
move much music must name near need never new next night no north not notice now number of off often old on once
one only open or order other our out over own page paper part pass people piece place plan plane plant play
point power pull put quick rain ran reach read ready real red rest right river road rock room round rule run
said same saw say school sea second see seem self set she ship short should show side simple since six
"""
WORDS = tuple(_VOCABULARY.split())
"""Short English words. In a byte-pair vocabulary for English, each word with its leading space is one token."""


class TokenCounter(Protocol):
    """Counts tokens, for exact lengths."""

    def __call__(self, text: str) -> int:
        """Number of tokens of `text`, without special tokens."""
        ...


def prompt_text(arrival: Arrival, seed: int, count_tokens: TokenCounter | None = None) -> str:
    """The prompt of one LLM arrival; the same arrival and seed always give the same text.

    Without a counter, each word counts as one token: exact for most English byte-pair vocabularies, a few per cent
    wrong for others. With a counter, the length is exact.

    Raises:
        ValueError: no text of the exact length was found.
    """
    words = _blocks(arrival, seed)
    if count_tokens is None:
        return " ".join(words)
    for attempt in range(64):
        excess = count_tokens(" ".join(words)) - arrival.prompt_tokens
        if excess == 0:
            return " ".join(words)
        words = words[:-excess] if excess > 0 else words + _words(-excess, seed, len(words), 2 + attempt)
    raise ValueError(f"no text of exactly {arrival.prompt_tokens} tokens found for {arrival.request_id}")


def lettered_prompt(arrival: Arrival, seed: int, letters_per_token: int) -> str:
    """A prompt for an engine that counts `letters_per_token` letters as one token; exactly as long as scheduled."""
    letters = arrival.prompt_tokens * letters_per_token
    words = " ".join([*_blocks(arrival, seed), *_words(arrival.prompt_tokens, seed, 0, 0)])
    return (words * (letters // len(words) + 1))[:letters]


def _blocks(arrival: Arrival, seed: int) -> list[str]:
    """The words of a prompt: full blocks depend only on their id, the rest only on the request."""
    words: list[str] = []
    for block_id in arrival.prefix_ids:
        length = min(arrival.prefix_block_tokens, arrival.prompt_tokens - len(words))
        words += _words(length, seed, block_id, 1)
    own = int.from_bytes(arrival.request_id.encode())
    return words + _words(arrival.prompt_tokens - len(words), seed, own, 0)


def _words(count: int, *entropy: int) -> list[str]:
    picks = np.random.default_rng(list(entropy)).integers(len(WORDS), size=max(0, count))
    return [WORDS[pick] for pick in picks]
