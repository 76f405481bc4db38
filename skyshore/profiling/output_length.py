"""How many tokens an answer will have, learned per service class from answers that were often cut short.

A request with a low limit says only that the answer would have been at least that long. Averaging such answers as if
they had ended by themselves makes every prediction too short, so lengths are treated as survival times: hazard per
length interval from ended and still-running answers alike (Kaplan and Meier's idea on intervals), and the expectation
E[min(L, limit)] is the area under the survival curve up to the limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGES: NDArray[np.float64] = np.array([0, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 1e9])
"""Token counts between which the hazard is taken as constant."""
PRIOR_MEAN_TOKENS = 128.0
"""Mean length believed before any answer was seen."""
PRIOR_ANSWERS = 2.0
"""Weight of that belief, in answers that crossed each interval."""
_PRIOR_TOKENS = PRIOR_ANSWERS * np.minimum(np.diff(EDGES), 4096.0)
FORGET = 0.998
"""Kept of the past per answer of the same class: half is forgotten after some 350."""


class OutputLength:
    """Length model of one service class."""

    def __init__(self) -> None:
        self._ends: NDArray[np.float64] = np.zeros(len(EDGES) - 1)
        self._tokens: NDArray[np.float64] = np.zeros(len(EDGES) - 1)
        """Tokens generated within each interval, by all answers that came so far."""

    def observe(self, tokens: int, limit: int) -> None:
        """Learn from an answer of `tokens` tokens that was allowed `limit`."""
        self._ends *= FORGET
        self._tokens *= FORGET
        self._tokens += np.clip(tokens - EDGES[:-1], 0.0, np.diff(EDGES))
        if tokens < limit:  # it ended by itself
            self._ends[np.searchsorted(EDGES, tokens, side="right") - 1] += 1.0

    def expect(self, limit: int) -> float:
        """E[min(L, limit)] in tokens."""
        hazard = (self._ends + _PRIOR_TOKENS / PRIOR_MEAN_TOKENS) / (self._tokens + _PRIOR_TOKENS)
        spans = np.clip(limit - EDGES[:-1], 0.0, np.diff(EDGES))
        reached = np.exp(-np.concatenate([[0.0], np.cumsum(hazard * spans)[:-1]]))
        return float(np.sum(reached * -np.expm1(-hazard * spans) / hazard))


class OutputLengths:
    """One model per service class; classes are few, and beyond `most` the strangers share one."""

    def __init__(self, most: int = 64) -> None:
        self._models: dict[str, OutputLength] = {}
        self._shared = OutputLength()
        self._most = most

    def observe(self, service_class: str, tokens: int, limit: int) -> None:
        """Learn from one answer."""
        if service_class not in self._models and len(self._models) < self._most:
            self._models[service_class] = OutputLength()
        self._models.get(service_class, self._shared).observe(tokens, limit)

    def expect(self, service_class: str, limit: int, *, to_the_limit: bool = False) -> float:
        """Expected tokens of an answer; exactly `limit` where the caller forbids it to end earlier."""
        if to_the_limit:
            return float(limit)
        return self._models.get(service_class, self._shared).expect(limit)
