"""Measures run times and derives how many prompt tokens may be computed between two decode runs."""

from __future__ import annotations

from typing import Final

from skyshore.nodemodel.turns import LEAST_CHUNK_TOKENS

_WEIGHT: Final = 0.2
"""Weight of the newest run in the moving averages."""
_LEAST_SLOPE: Final = 0.1
"""Lower bound of a token's time, as a share of the mean: noise must not make tokens look free."""


class StepCosts:
    """Moving averages of decode and prefill times.

    Chunks of every size give the same bits (see `Decoder.extend`), so timing may choose them without changing answers.
    """

    def __init__(self, max_chunk_tokens: int, stall_ratio: float) -> None:
        """`stall_ratio` bounds a chunk's time in decode runs: 1 lets a prompt at most double others' token gap."""
        self._max_chunk_tokens = max_chunk_tokens
        self._stall_ratio = stall_ratio
        self._decode_s = 0.0
        self._prefill = _Line()

    def decoded(self, elapsed_s: float) -> None:
        """Record the seconds of one decode run."""
        self._decode_s = _average(self._decode_s, elapsed_s)

    def prefilled(self, tokens: int, elapsed_s: float) -> None:
        """Record the seconds of one prefill run."""
        self._prefill.add(tokens, elapsed_s)

    def chunk_tokens(self, decoding: int, prompts: int = 1) -> int:
        """Prompt tokens the next step may compute while `decoding` answers wait and `prompts` prompts are queued.

        Each prompt brings its own share of delay: one after the other they would delay the same answers as long, and
        small chunks cost more a token. `max_chunk_tokens` bounds what they may take together.
        """
        if not decoding:
            return self._max_chunk_tokens
        least = min(LEAST_CHUNK_TOKENS, self._max_chunk_tokens)
        if not self._decode_s or not self._prefill.known:
            return least
        affordable = self._prefill.reach(self._stall_ratio * self._decode_s * max(1, prompts))
        return max(min(affordable, self._max_chunk_tokens), least)


class _Line:
    """Seconds of a run as a fixed part and a part per token, by least squares over a fading past.

    A mean time per token would make small chunks look expensive by their fixed part, so they would stay small.
    """

    def __init__(self) -> None:
        self._tokens = self._seconds = self._squares = self._products = 0.0

    @property
    def known(self) -> bool:
        return self._tokens > 0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens = _average(self._tokens, tokens)
        self._seconds = _average(self._seconds, seconds)
        self._squares = _average(self._squares, tokens * tokens)
        self._products = _average(self._products, tokens * seconds)

    def reach(self, seconds: float) -> int:
        """Tokens that a run of that many seconds can compute."""
        mean = self._seconds / self._tokens
        spread = self._squares - self._tokens**2
        slope = mean
        if spread > 1.0:
            slope = (self._products - self._tokens * self._seconds) / spread
            slope = min(max(slope, _LEAST_SLOPE * mean), mean)
        fixed = self._seconds - slope * self._tokens
        return max(0, int((seconds - fixed) / slope))


def _average(old: float, new: float) -> float:
    return new if not old else old + _WEIGHT * (new - old)
