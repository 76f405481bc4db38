"""The policy `skyshore` as machine code decides and learns as in plain Python, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.policies.kernel_policy import demand_values, fill_estimates
from skyshore.policies.own.skyshore import Skyshore
from skyshore.policies.protocol import Arms
from skyshore.rules.choose import decide, learn_attempt
from skyshore.rules.kernel import can_compile, compiled
from skyshore.rules.records import (
    ATTEMPT,
    DECISION,
    DEMAND,
    ESTIMATE,
    EXPIRED,
    FAILED,
    OK,
    Options,
    Records,
    get,
    in_form,
    put,
    rows,
)
from skyshore.rules.reserve import start_attempt
from tests.fakes.arms import context, worlds

pytestmark = pytest.mark.skipif(not can_compile(), reason="numba is not installed: there is no machine code")

TASKS = 6
"""Task numbers; a new serial now and then makes one stand for another task."""
figure = st.floats(0.01, 5.0)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "pause_s": st.floats(0.0, 3.0),
            "task": st.integers(0, TASKS - 1),
            "renewed": st.booleans(),
            "deadline_s": st.floats(0.05, 20.0),
            "min_quality": st.sampled_from([0.0, 0.5]),
            "up_bytes": st.floats(0.0, 60_000.0),
            "group": st.integers(0, 2),
            "ends": st.sampled_from([None, OK, OK, OK, FAILED, EXPIRED]),
            "measured_s": figure,
            "computed_s": figure,
            "joules": st.one_of(st.just(0.0), st.floats(0.01, 90.0)),
            "quality": st.sampled_from([0.0, 0.3, 0.8]),
        }
    ),
    min_size=1,
    max_size=40,
)


class PolicyRun:
    """One policy and the attempts it placed, in one of the two forms."""

    def __init__(self, world: Arms, seed: int, *, arrays: bool) -> None:
        self.policy, self.arrays, self.count = Skyshore(np.random.default_rng(seed)), arrays, len(world)
        self.options = Options(
            rows(DECISION, 1, arrays=False), rows(ESTIMATE, self.count, arrays=False), [0.0] * self.count
        )
        fill_estimates(self.options.estimates, world, *self.policy.number_arms(world.table), 10.0)
        self.policy.make_room(nodes=self.count, tasks=TASKS)
        self.policy.use(arrays=arrays)
        self.options = in_form(self.options, arrays=arrays)
        self.demands, self.attempts = rows(DEMAND, 1, arrays=arrays), rows(ATTEMPT, TASKS, arrays=arrays)
        self.serials, self.placed = list(range(TASKS)), [False] * TASKS

    def kernel(self, function):
        return compiled(function) if self.arrays else function

    def step(self, number: int, now_s: float, step: dict) -> list[float]:
        """Place a task; end it if the step says so. Returns all that the policy answered."""
        demand, decision, task = self.demands[0], self.options.decision[0], step["task"]
        if step["renewed"]:
            self.serials[task] = TASKS + number
        put(demand, demand_values(context(now_s, deadline_s=step["deadline_s"], min_quality=step["min_quality"])))
        put(demand, {"task": task, "serial": self.serials[task], "group": step["group"]})
        put(decision, {"count": self.count})
        for index in range(self.count):
            put(self.options.estimates[index], {"up_bytes": step["up_bytes"], "up_bytes_per_s": 2e5})
        self.kernel(decide)(self.policy.state, demand, self.options)
        if get(decision, "index") >= 0:
            self.kernel(start_attempt)(self.attempts[task], demand, self.options, 5.0)
            self.placed[task] = True
        if step["ends"] is not None and self.placed[task]:
            self.end(self.attempts[task], now_s + 0.5 * step["measured_s"], step)
        written = [get(decision, name) for name in ("index", "propensity", "transient", "f0", "f1", "f2", "f3")]
        return [*written, *map(float, self.options.scores)]

    def end(self, attempt: Records, now_s: float, step: dict) -> None:
        answered = int(step["ends"] == OK)
        measured = {
            "status": step["ends"],
            "answered": answered,
            "met": answered,
            "measured_s": step["measured_s"],
            "compute_s": step["computed_s"],
            "inference_joules": step["joules"],
            "answer_quality": step["quality"],
        }
        put(attempt, measured)
        self.kernel(learn_attempt)(self.policy.state, attempt, now_s)


def values_of(state: object) -> object:
    """All numbers of a state in plain form."""
    if isinstance(state, tuple | list):
        return [values_of(each) for each in state]
    if isinstance(state, np.random.Generator):
        return state.bit_generator.state
    return [getattr(state, name) for name in state.__slots__] if hasattr(type(state), "dtype") else state


@settings(max_examples=60, deadline=None)
@given(world=worlds(), history=steps, seed=st.integers(0, 9))
def test_machine_code_and_plain_python_agree(world, history, seed):
    plain, machine = PolicyRun(world, seed, arrays=False), PolicyRun(world, seed, arrays=True)
    now_s = 1.0
    for number, step in enumerate(history):
        now_s += step["pause_s"]
        assert plain.step(number, now_s, step) == machine.step(number, now_s, step)
    assert plain.policy.snapshot() == machine.policy.snapshot()
    assert values_of(plain.policy.state) == values_of(in_form(machine.policy.state, arrays=False))
