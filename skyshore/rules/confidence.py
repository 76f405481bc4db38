"""The index of CS-UCB (PerLLM, arXiv 2405.14636)."""

from __future__ import annotations

import math

from skyshore.rules.kernel import kernel


@kernel
def confidence_index(  # noqa: PLR0917 (numba takes arguments by position)
    mean: float, count: float, log_total: float, slack: float, delta: float, theta: float
) -> float:
    """U(k, a) of an arm that was pulled: mean + δ·√(ln t / N) + θ·min(f, 0)."""
    return mean + delta * math.sqrt(log_total / count) + theta * (slack if slack < 0 else 0.0)
