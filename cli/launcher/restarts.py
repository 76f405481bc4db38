"""Decides when a process that ended by itself starts again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from skyshore.runtime.backoff import doubled_wait_s


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between the end of a process and its next start: they double until the process stays."""

    first_s: float = 0.5
    most_s: float = 30.0
    stays_s: float = 60.0
    """A process that ran so long begins again with `first_s`."""
    jitter: float = 0.2
    """Largest share by which a wait is longer, so that processes that ended together do not start together."""


class Restarts:
    """Counts starts and ends; times come as arguments."""

    def __init__(self, rng: random.Random, backoff: Backoff = Backoff()) -> None:
        self._rng, self._backoff = rng, backoff
        self._short_runs: dict[str, int] = {}
        self._started_s: dict[str, float] = {}

    def started(self, name: str, now_s: float) -> None:
        """A process was started."""
        self._started_s[name] = now_s

    def wait_s(self, name: str, now_s: float) -> float:
        """Seconds until a process that ended now starts again."""
        rules = self._backoff
        if now_s - self._started_s.get(name, now_s) >= rules.stays_s:
            self._short_runs[name] = 0
        runs = self._short_runs.get(name, 0)
        self._short_runs[name] = runs + 1
        wait_s = doubled_wait_s(rules.first_s, rules.most_s, runs)
        return wait_s * (1.0 + rules.jitter * self._rng.random())
