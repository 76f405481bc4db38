"""When a process that ended starts again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cli.launcher.restarts import Backoff, Restarts

RULES = Backoff(first_s=0.5, most_s=8.0, stays_s=60.0, jitter=0.0)


def waits(runs_s: list[float], rules: Backoff = RULES) -> list[float]:
    restarts, now_s, waited = Restarts(random.Random(1), rules), 0.0, []
    for run_s in runs_s:
        restarts.started("a", now_s)
        now_s += run_s
        waited.append(restarts.wait_s("a", now_s))
        now_s += waited[-1]
    return waited


def test_waits_double_up_to_the_most() -> None:
    assert waits([0.0] * 7) == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_process_that_stayed_begins_again_with_the_first_wait() -> None:
    assert waits([0.0, 0.0, 59.9, 60.0, 0.0]) == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_processes_are_counted_apart() -> None:
    restarts = Restarts(random.Random(1), RULES)
    assert [restarts.wait_s(name, 0.0) for name in "aab"] == [0.5, 1.0, 0.5]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=80), st.floats(0, 1), st.integers())
def test_every_wait_is_within_its_bounds(runs_s: list[float], jitter: float, seed: int) -> None:
    rules = Backoff(first_s=0.5, most_s=8.0, stays_s=60.0, jitter=jitter)
    restarts, now_s = Restarts(random.Random(seed), rules), 0.0
    for run_s in runs_s:
        restarts.started("a", now_s)
        wait_s = restarts.wait_s("a", now_s := now_s + run_s)
        assert rules.first_s <= wait_s <= rules.most_s * (1 + jitter)
