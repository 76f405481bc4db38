"""Limits retries to a share of the requests: when everything fails, retries must not multiply the load. Pure."""

from __future__ import annotations


class RetryBudget:
    """A bucket of tokens. Each task adds `share` tokens, each retry takes one; there are at most `burst`."""

    def __init__(self, share: float, burst: float) -> None:
        """Retries are at most `burst` plus `share` times the tasks, over any time."""
        self._share, self._burst = share, burst
        self._tokens = burst

    def add_task(self) -> None:
        """A task was sent to a node for the first time."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def take(self) -> bool:
        """Whether a retry may be sent now; if so, it is paid."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
