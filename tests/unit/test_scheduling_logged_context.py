"""A logged context asks another policy the very question that was asked first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.domain.errors import InvalidTask
from skyshore.policies.registry import create_policy
from skyshore.scheduling.logged_context import decode_context, encode_context
from tests.fakes.arms import context, worlds


@given(worlds(), st.floats(0.5, 60.0), st.sampled_from(["skyshore", "cs_ucb.filter_only", "shortest_delay"]))
def test_a_policy_answers_a_logged_context_as_the_one_it_was_logged_from(world, deadline_s, name):
    ctx = context(deadline_s=deadline_s)
    estimates = [world.estimate(row) for row in range(len(world))]
    text = encode_context(ctx, estimates)
    names = [estimate.arm_id for estimate in estimates]
    again, arms = decode_context(text, names, ctx.task.task_id, ctx.task.service_class, ctx.now_s)
    assert again == ctx
    np.testing.assert_allclose(arms.latency_s, world.latency_s, rtol=1e-5)
    first, second = (create_policy(name, np.random.default_rng(0)) for _ in range(2))
    ours, theirs = first.select(ctx, world), second.select(again, arms)
    # A score may be the small difference of two estimates, each logged to six digits: slack is, near the deadline.
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["", "{}", '{"task": ["llm", 1, 0, 0], "profile": {}, "arms": [["n", 1]]}', "[1"])
def test_anything_else_is_no_context(text):
    with pytest.raises(InvalidTask, match="not a logged context"):
        decode_context(text, ["n/m"], "t", "standard", 0.0)
