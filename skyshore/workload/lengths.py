"""Prompt and output lengths in tokens, log-normal as in the published traces."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def lognormal_tokens(
    mean_tokens: float, cv: float, count: int, rng: np.random.Generator, *, max_tokens: int
) -> NDArray[np.int64]:
    """`count` lengths from 1 to `max_tokens`; mean and coefficient of variation are those before clipping."""
    if mean_tokens < 1 or cv < 0 or max_tokens < 1:
        raise ValueError("mean_tokens and max_tokens must be at least 1, cv at least 0")
    sigma = math.sqrt(math.log(1 + cv**2))
    drawn = rng.lognormal(math.log(mean_tokens) - sigma**2 / 2, sigma, count)
    return np.clip(np.rint(drawn), 1, max_tokens).astype(np.int64)
