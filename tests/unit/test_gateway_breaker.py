"""Breakers of nodes and the budget of retries, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.breaker import FAILURES, FIRST_OPEN_S, FORGET_S, LONGEST_OPEN_S, BreakerState, NodeBreakers
from gateway.endings import blames_node
from gateway.retry_budget import RetryBudget
from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NoAnswer,
    NodeDied,
    NodeUnavailable,
    PromptTooLong,
    QueueFull,
)


def opened(now_s: float = 0.0) -> NodeBreakers:
    breakers = NodeBreakers()
    for _ in range(FAILURES):
        assert breakers.begin("n", now_s)
        breakers.failed("n", now_s)
    return breakers


def test_it_opens_after_failures_in_a_row_and_only_for_that_node() -> None:
    breakers = NodeBreakers()
    for number in range(FAILURES - 1):
        breakers.failed("n", number)
    breakers.succeeded("n")
    for number in range(FAILURES - 1):
        breakers.failed("n", number)
    assert breakers.state("n", 9.0) is BreakerState.CLOSED
    breakers.failed("n", 9.0)
    assert breakers.state("n", 9.0) is BreakerState.OPEN
    assert not breakers.begin("n", 9.0)
    assert breakers.begin("other", 9.0)
    assert breakers.shut(9.0) == ["n"]


def test_one_probe_at_a_time_and_its_success_closes() -> None:
    breakers = opened()
    assert not breakers.begin("n", FIRST_OPEN_S - 0.01)
    assert breakers.state("n", FIRST_OPEN_S) is BreakerState.HALF_OPEN
    assert breakers.shut(FIRST_OPEN_S) == []
    assert breakers.begin("n", FIRST_OPEN_S)
    assert not breakers.begin("n", FIRST_OPEN_S)
    assert breakers.shut(FIRST_OPEN_S) == ["n"]
    breakers.succeeded("n")
    assert breakers.state("n", FIRST_OPEN_S) is BreakerState.CLOSED
    assert breakers.begin("n", FIRST_OPEN_S)


def test_a_failed_probe_opens_for_twice_as_long_up_to_a_limit() -> None:
    breakers, now_s, waits_s = opened(), 0.0, []
    for _ in range(6):
        began_s = now_s
        while not breakers.begin("n", now_s):
            now_s += 0.25
        waits_s.append(now_s - began_s)
        breakers.failed("n", now_s)
    assert waits_s == [1.0, 2.0, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]


def test_a_probe_whose_caller_leaves_says_nothing_and_makes_room_for_the_next() -> None:
    breakers = opened()
    assert breakers.begin("n", FIRST_OPEN_S)
    breakers.said_nothing("n")
    assert breakers.state("n", FIRST_OPEN_S) is BreakerState.HALF_OPEN
    assert breakers.begin("n", FIRST_OPEN_S)


def test_tasks_that_were_begun_before_it_opened_do_not_keep_it_open() -> None:
    breakers = opened(0.0)
    breakers.failed("n", FIRST_OPEN_S - 0.01)
    assert breakers.state("n", FIRST_OPEN_S) is BreakerState.HALF_OPEN


def test_a_node_that_is_gone_is_forgotten() -> None:
    breakers = opened(0.0)
    breakers.failed("other", FORGET_S + 1.0)
    assert breakers.state("n", 0.0) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (NodeUnavailable("gone"), True),
        (NodeDied("gone"), True),
        (Internal("broke"), True),
        (NoAnswer("the scheduler is silent"), False),
        (QueueFull("full"), False),
        (InvalidTask("wrong"), False),
        (PromptTooLong("long"), False),
        (DeadlineExceeded("late"), False),
        (GeneratorExit(), False),
        (RuntimeError("a bug of the gateway"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_faults_of_the_node_count(error: BaseException, blamed: bool) -> None:
    assert blames_node(error) is blamed


class BreakerMachine(RuleBasedStateMachine):
    """One node, any order of events: at most one probe runs, and time alone always leads out of "open"."""

    def __init__(self) -> None:
        super().__init__()
        self.breakers, self.now_s, self.running, self.probes = NodeBreakers(), 0.0, 0, 0

    @rule(by_s=st.floats(0, 3))
    def time_passes(self, by_s: float) -> None:
        self.now_s += by_s

    @rule()
    def task_arrives(self) -> None:
        state = self.breakers.state("n", self.now_s)
        allowed = self.breakers.begin("n", self.now_s)
        if state is BreakerState.CLOSED:
            assert allowed
        if state is BreakerState.OPEN:
            assert not allowed
        if state is BreakerState.HALF_OPEN and allowed:
            assert self.probes == 0
            self.probes += 1
        self.running += allowed

    @precondition(lambda self: self.running)
    @rule(how=st.sampled_from(["succeeded", "failed", "said_nothing"]))
    def task_ends(self, how: str) -> None:
        self.running -= 1
        self.probes = 0
        if how == "failed":
            self.breakers.failed("n", self.now_s)
        else:
            getattr(self.breakers, how)("n")
        if how == "succeeded":
            assert self.breakers.state("n", self.now_s) is BreakerState.CLOSED

    @invariant()
    def it_never_stays_open(self) -> None:
        assert self.breakers.state("n", self.now_s + LONGEST_OPEN_S) is not BreakerState.OPEN


TestBreaker = BreakerMachine.TestCase


@given(st.lists(st.booleans(), max_size=400), st.floats(0, 1), st.integers(0, 20))
def test_retries_never_exceed_their_share(is_task: list[bool], share: float, burst: int) -> None:
    budget, tasks, retries = RetryBudget(share, burst), 0, 0
    for one in is_task:
        if one:
            tasks += 1
            budget.add_task()
        else:
            retries += budget.take()
        assert retries <= burst + share * tasks + 1e-6


def test_a_budget_fills_up_again_with_tasks_only() -> None:
    budget = RetryBudget(0.5, 2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.add_task()
    assert not budget.take()
    budget.add_task()
    assert budget.take()
