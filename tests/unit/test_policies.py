"""What every registered policy promises, and what the deliberately bad ones prove."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.errors import NotFound
from skyshore.policies.protocol import REFUSED, SavedPolicy
from skyshore.policies.registry import POLICIES, create_policy
from skyshore.scheduling.core import CoreSettings
from tests.fakes.arms import arms_of, context, feedback, worlds
from tests.fakes.queue_model import QueueModel, llm_arrivals
from tests.replay.record import fleet


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=12, deadline=None)
@given(world=worlds(), deadline_s=st.floats(0.1, 60.0))
def test_every_policy_answers_with_a_row_and_its_chance(name, world, deadline_s):
    policy = create_policy(name, np.random.default_rng(0))
    ctx = context(deadline_s=deadline_s, min_quality=0.2)
    for _ in range(3):
        decision = policy.select(ctx, world)
        assert decision.index == REFUSED or 0 <= decision.index < len(world)
        assert 0 < decision.propensity <= 1
        assert decision.scores is None or decision.scores.shape == (len(world),)
        if decision.index != REFUSED:
            policy.update(feedback(ctx, world, decision.index, reward=0.1))


SAVED = [name for name in sorted(POLICIES) if isinstance(create_policy(name, np.random.default_rng(0)), SavedPolicy)]


def test_every_policy_that_learns_for_long_is_saved():
    assert {"a2", "cdio", "cs_ucb", "linucb", "primal_dual", "rewardless_guidance", "skyshore"} <= set(SAVED)
    assert not {"random", "round_robin", "least_loaded", "busiest"} & set(SAVED)


@pytest.mark.parametrize("name", SAVED)
def test_a_restored_policy_decides_as_the_one_it_was_saved_from(name):
    rng = np.random.default_rng(1)
    world = arms_of(5, service_s=rng.uniform(0.5, 2, 5), joules=rng.uniform(5, 50, 5), load=rng.integers(0, 3, 5))
    learned = create_policy(name, np.random.default_rng(2))
    for step in range(40):
        ctx = context(float(step), task_id=f"t{step}", deadline_s=5.0)
        decision = learned.select(ctx, world)
        if decision.index != REFUSED:
            reward = -float(world.joules[decision.index]) / 50
            learned.update(feedback(ctx, world, decision.index, reward, latency_s=float(rng.uniform(0.5, 3))))
    saved = learned.snapshot()
    first, second = (create_policy(name, np.random.default_rng(3)) for _ in range(2))
    first.restore(saved)
    second.restore(saved)
    ctx = context(99.0, deadline_s=5.0)
    ours, theirs = learned.select(ctx, world), first.select(ctx, world)
    np.testing.assert_allclose(ours.scores, theirs.scores)
    assert first.snapshot() == second.snapshot()


@pytest.mark.parametrize("name", ["cs_ucb", "skyshore"])
def test_arms_may_be_learned_of_before_they_are_offered(name):
    policy, world = create_policy(name, np.random.default_rng(0)), arms_of(70)
    for index in range(70):
        policy.update(feedback(context(), world, index, reward=0.5))
    assert policy.select(context(), world).index >= 0


@pytest.mark.parametrize("name", ["cs_ucb", "skyshore"])
@pytest.mark.parametrize("damage", [b"x", b"\x00\x00\x00\x04abcd" * 3, b"\x00\x00\x00\x04abcd" * 4])
def test_a_damaged_snapshot_is_refused(name, damage):
    with pytest.raises(ValueError, match="snapshot"):
        create_policy(name, np.random.default_rng(0)).restore(damage)


def test_an_unknown_policy_is_named_with_the_known():
    with pytest.raises(NotFound, match="least_loaded"):
        create_policy("nonsense", np.random.default_rng(0))


def test_random_is_uniform_and_says_so():
    policy = create_policy("random", np.random.default_rng(0))
    decisions = [policy.select(context(), arms_of(4)) for _ in range(4000)]
    counts = np.bincount([decision.index for decision in decisions])
    assert counts.min() > 900
    assert {decision.propensity for decision in decisions} == {0.25}


def test_round_robin_visits_all_in_turn_also_when_some_are_full():
    policy = create_policy("round_robin", np.random.default_rng(0))
    table = arms_of(4).table
    rows = [[0, 1, 2, 3], [0, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2]]
    chosen = []
    for visible in rows:
        arms = arms_of(4, table=table, rows=visible)
        chosen.append(int(arms.rows[policy.select(context(), arms).index]))
    assert chosen == [0, 2, 3, 0, 1]


def test_power_of_two_states_its_true_chances():
    loads = [0.0, 1.0, 1.0, 3.0]
    policy = create_policy("power_of_two", np.random.default_rng(0))
    decisions = [policy.select(context(), arms_of(4, load=loads)) for _ in range(20_000)]
    counts = np.bincount([decision.index for decision in decisions], minlength=4) / len(decisions)
    stated = {decision.index: decision.propensity for decision in decisions}
    for index, share in enumerate(counts):
        assert share == pytest.approx(stated.get(index, 0.0), abs=0.01)


def test_greedy_policies_take_the_extreme_of_their_estimate():
    world = arms_of(3, service_s=[3.0, 1.0, 2.0], joules=[1.0, 9.0, 5.0])
    chosen = {
        name: create_policy(name, np.random.default_rng(0)).select(context(), world).index
        for name in ("shortest_delay", "greedy_energy", "slowest")
    }
    assert chosen == {"shortest_delay": 1, "greedy_energy": 0, "slowest": 0}


@pytest.mark.parametrize("bad", ["busiest", "slowest"])
def test_bad_policies_show_in_the_metrics(bad):
    def attainment(policy: str) -> float:
        return QueueModel(fleet(), CoreSettings(policy=policy), seed=1).play(llm_arrivals(3.0, 300, seed=1)).attainment

    assert attainment(bad) < attainment("random") < attainment("least_loaded")
