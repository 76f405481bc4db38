"""The papers' baselines: each does what its paper is known for, in a world where that can be seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.outcome import OutcomeStatus
from skyshore.policies.papers.a2 import A2
from skyshore.policies.papers.dds import Dds
from skyshore.policies.papers.fine_infer import FineInfer
from skyshore.policies.papers.jcab import Jcab
from skyshore.policies.papers.rewardless_guidance import RewardlessGuidance, plan_values
from skyshore.policies.papers.world_model import WorldModel
from skyshore.policies.protocol import REFUSED
from skyshore.scheduling.core import CoreSettings
from tests.fakes.arms import arms_of, context, feedback
from tests.fakes.queue_model import QueueModel, llm_arrivals
from tests.replay.record import fleet


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------ FineInfer


def test_fine_infer_defers_within_its_bound_and_uses_the_cloud_alone():
    arrivals = {arrival.task.task_id: arrival for arrival in llm_arrivals(4.0, 120, seed=2)}
    run = QueueModel(fleet(), CoreSettings(policy="fine_infer"), seed=1).play(arrivals.values())
    waited = [a.placement.decided_at_s - arrivals[a.placement.task_id].at_s for a in run.dispatched]
    assert {action.placement.arm.node_id for action in run.dispatched} == {"cloud"}
    assert max(waited) <= FineInfer(rng()).slot_s + 1e-9
    assert np.mean(waited) > 0.1


def test_fine_infer_fills_a_batch_before_it_opens_another():
    world = arms_of(4, slots=4.0, load=[0.0, 1.0, 0.0, 3.0])  # rows 1 and 3 are cloud
    assert FineInfer(rng()).select(context(), world).index == 3
    full = arms_of(4, slots=4.0, load=[0.0, 6.0, 0.0, 5.0])
    assert FineInfer(rng()).select(context(), full).index == 3


@pytest.mark.parametrize("policy", [FineInfer(rng()), A2(rng()), Dds(rng())])
def test_cloud_baselines_refuse_for_the_moment_without_a_cloud(policy):
    decision = policy.select(context(), arms_of(1))
    assert decision.index == REFUSED
    assert decision.transient


# --------------------------------------------------------------------------------------- RewardlessGuidance


def test_the_world_model_learns_and_is_surest_where_it_has_been():
    model, source = WorldModel(rng(), 2, 1), np.random.default_rng(1)
    for _ in range(600):
        x = source.uniform(-1, 0, 2)
        model.observe(x, np.array([np.sin(3 * x[0]) + x[1]]))
    model.fit(400)
    seen, unseen = source.uniform(-1, 0, (200, 2)), source.uniform(2, 3, (200, 2))
    truth = np.sin(3 * seen[:, 0]) + seen[:, 1]
    guesses = model.predict(seen)
    assert np.abs(guesses.mean(axis=0)[:, 0] - truth).mean() < 0.1
    assert model.predict(unseen).var(axis=0).mean() > 20 * guesses.var(axis=0).mean()


def test_the_world_models_slope_is_the_losss():
    """Adam's first moment after one step is (1 − β)·slope; compare with finite differences."""
    model = WorldModel(rng(), 3, 2, members=2, hidden=4)
    source = np.random.default_rng(3)
    x, y = source.normal(size=(2, 8, 3)), source.normal(size=(2, 8, 2))

    def loss() -> float:
        first, first_bias, second, second_bias = model._weights
        guess = np.tanh(x @ first + first_bias) @ second + second_bias
        return float(((guess - y) ** 2).sum() / x.shape[1])

    numeric = []
    for weight in model._weights:
        slope = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            kept, step = weight[place], 1e-6
            weight[place] = kept + step
            above = loss()
            weight[place] = kept - step
            slope[place] = (above - loss()) / (2 * step)
            weight[place] = kept
        numeric.append(slope)
    model._descend(x, y)
    for mean, slope in zip(model._means, numeric, strict=True):
        np.testing.assert_allclose(mean / 0.1, slope, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_plans_are_worth_the_sum_of_their_steps_crowding_counted(seed):
    source = np.random.default_rng(seed)
    merits, node = source.normal(size=(3, 4)), source.integers(0, 2, 4)
    plans = source.integers(0, 4, (10, 3))
    for plan, value in zip(plans, plan_values(plans.T, merits, node), strict=True):
        used: dict[int, int] = {}
        total = 0.0
        for arm in plan:
            total += merits[used.get(node[arm], 0), arm]
            used[node[arm]] = used.get(node[arm], 0) + 1
        assert value == pytest.approx(total)


def test_planning_finds_nearly_the_best_plans_first_step():
    """Against every plan there is: 5 arms, horizon 3, on 40 random tables of merits."""
    policy, source, lost = RewardlessGuidance(rng(), horizon=3), np.random.default_rng(4), []
    every = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for _ in range(40):
        merits = -np.sort(-source.uniform(0, 1, (3, 5)), axis=0)  # company never helps
        node = np.array([0, 0, 1, 2, 2])
        values = plan_values(every.T, merits, node)
        first = policy._plan_first(merits, node)
        lost.append((values.max() - values[every[:, 0] == first].max()) / values.max())
    assert np.mean(lost) < 0.02


def test_guidance_learns_that_an_arm_lies_about_its_speed():
    policy, world = RewardlessGuidance(rng()), arms_of(2, service_s=[1.0, 2.0], queue_s=0.0)
    assert policy.select(context(deadline_s=4.0), world).index == 0
    for _ in range(320):
        ctx = context(deadline_s=4.0)
        policy.update(feedback(ctx, world, 0, latency_s=6.0, deadline_s=4.0))
        policy.update(feedback(ctx, world, 1, latency_s=2.0, deadline_s=4.0))
    assert policy.select(context(deadline_s=4.0), world).index == 1


def test_guidance_decides_the_same_twice():
    policy, world = RewardlessGuidance(rng()), arms_of(6, service_s=[1.0, 1.1, 1.2, 1.0, 1.1, 1.2])
    assert {policy.select(context(), world).index for _ in range(5)} == {policy.select(context(), world).index}


# ---------------------------------------------------------------------------------------------------- video


def test_jcab_sends_less_when_deadlines_slip():
    """Row 0 is accurate and slow, row 1 plain and quick."""
    policy = Jcab(rng(), slot_s=0.0, energy_weight=0.0)
    world = arms_of(2, quality=[0.9, 0.6], service_s=[0.9, 0.2], joules=1.0)
    ctx = context(deadline_s=1.0)
    assert policy.select(ctx, world).scores.argmax() == 0
    for _ in range(100):
        policy.update(feedback(ctx, world, 0, latency_s=1.5, deadline_s=1.0))
    assert policy.select(ctx, world).scores.argmax() == 1
    for _ in range(400):
        policy.update(feedback(ctx, world, 1, latency_s=0.2, deadline_s=1.0))
    assert policy.select(ctx, world).scores.argmax() == 0


def test_jcab_states_the_chance_of_its_chains_move():
    policy, world = Jcab(rng(), slot_s=0.0, beta=5.0), arms_of(3, quality=[0.5, 0.6, 0.7])
    decisions = [policy.select(context(deadline_s=9.0), world) for _ in range(8000)]
    shares = np.bincount([decision.index for decision in decisions], minlength=3) / len(decisions)
    stated = {decision.index: decision.propensity for decision in decisions}
    for index, share in enumerate(shares):
        assert share == pytest.approx(stated[index], abs=0.02)


def test_jcab_spreads_a_slot_over_links_that_one_task_alone_would_share():
    policy = Jcab(rng(), beta=200.0)
    world = arms_of(2, quality=[0.61, 0.6], up_bytes=1e6, up_bytes_per_s=1e6, joules=1.0)
    contexts = [context(task_id=f"t{i}", deadline_s=2.5) for i in range(2)]
    policy.plan(contexts, [world, world])
    assert {policy.select(ctx, world).index for ctx in contexts} == {0, 1}
    alone = context(task_id="alone", deadline_s=2.5)
    policy.plan([alone], [world])
    assert policy.select(alone, world).index == 0


def test_a2_takes_the_most_accurate_that_the_link_allows_and_learns_how_slow_it_is():
    policy = A2(rng())
    fast = arms_of(4, quality=[0.9, 0.8, 0.9, 0.5], transmission_s=[0, 0.2, 0, 0.1], service_s=0.1)
    slow = arms_of(4, quality=[0.9, 0.8, 0.9, 0.5], transmission_s=[0, 2.0, 0, 0.1], service_s=0.1)
    ctx = context(deadline_s=1.0)
    assert policy.select(ctx, fast).index == 1  # rows 0 and 2 are edge
    assert policy.select(ctx, slow).index == 3
    policy.update(feedback(ctx, fast, 1, latency_s=1.5, status=OutcomeStatus.DEADLINE_EXCEEDED))
    assert policy.select(ctx, fast).index == 3


def test_dds_sends_better_pixels_once_where_the_server_was_unsure():
    policy = Dds(rng())
    world = arms_of(4, quality=[0.9, 0.9, 0.9, 0.6], up_bytes=[1e3, 9e3, 1e3, 1e3])

    def segment(number: int) -> int:
        ctx = context(task_id=f"s{number}", job_id="camera", deadline_s=5.0)
        index = policy.select(ctx, world).index
        seen = 0.3 if number == 1 and index == 3 else float(world.quality[index])
        policy.update(feedback(ctx, world, index, quality=seen))
        return index

    assert [segment(number) for number in range(4)] == [3, 3, 1, 3]


def test_dds_forgets_streams_beyond_its_bound():
    policy, world = Dds(rng()), arms_of(2)
    for number in range(5000):
        ctx = context(task_id=f"s{number}", job_id=f"camera{number}")
        policy.update(feedback(ctx, world, 1, quality=0.1))
    assert len(policy._asked) == 4096
