"""How long runs take on this machine, and from that how much prompt may be computed between two decode runs."""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2
"""Of the newest run in the moving averages."""
_MIN_CHUNK_TOKENS: Final = 8
"""Below this a run costs nearly the same whatever it computes."""


class StepCosts:
    """Moving averages of decode and prefill times.

    Chunks of every size give the same bits (see `Decoder.extend`), so timing may choose them without changing answers.
    """

    def __init__(self, max_chunk_tokens: int, stall_ratio: float) -> None:
        """`stall_ratio` bounds a chunk's time in decode runs: 1 lets a prompt at most double others' token gap."""
        self._max_chunk_tokens = max_chunk_tokens
        self._stall_ratio = stall_ratio
        self._decode_s = 0.0
        self._token_s = 0.0

    def decoded(self, elapsed_s: float) -> None:
        """Note one decode run."""
        self._decode_s = _average(self._decode_s, elapsed_s)

    def prefilled(self, tokens: int, elapsed_s: float) -> None:
        """Note one prefill run."""
        self._token_s = _average(self._token_s, elapsed_s / tokens)

    def chunk_tokens(self, decoding: int) -> int:
        """Prompt tokens the next step may compute while `decoding` answers wait for it."""
        if not decoding:
            return self._max_chunk_tokens
        if not self._token_s or not self._decode_s:
            return min(_MIN_CHUNK_TOKENS, self._max_chunk_tokens)
        affordable = int(self._stall_ratio * self._decode_s / self._token_s)
        return max(min(affordable, self._max_chunk_tokens), min(_MIN_CHUNK_TOKENS, self._max_chunk_tokens))


def _average(old: float, new: float) -> float:
    return new if not old else old + _WEIGHT * (new - old)
