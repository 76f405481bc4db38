"""CS-UCB: the filter, the index, the statistics and the regret, each against something computed another way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.task import TaskKind
from skyshore.policies.papers.cs_ucb import CsUcb
from skyshore.policies.protocol import REFUSED, Arms, Context
from skyshore.rules.records import MOST_GROUPS
from skyshore.rules.slack import deadline_slack, spare_share
from skyshore.rules.statistics import blank_statistics, learn_reward, mean_reward
from skyshore.scheduling.core import CoreSettings
from tests.fakes.arms import arms_of, context, feedback, worlds
from tests.fakes.queue_model import QueueModel, llm_arrivals
from tests.replay.record import fleet


def slack_of(world: Arms, ctx: Context) -> np.ndarray:
    """f of every row, from the constraints as the paper states them."""
    spare = [
        spare_share(
            world.load[row],
            world.capacity[row],
            world.up_bytes[row],
            world.reserved_bytes_per_s[row],
            world.up_bytes_per_s[row],
            world.kv_used[row],
            ctx.remaining_s,
        )
        for row in range(len(world))
    ]
    return np.minimum(deadline_slack(world.latency_s, ctx.remaining_s), spare)


@settings(max_examples=60, deadline=None)
@given(world=worlds(), deadline_s=st.floats(0.1, 60.0), seed=st.integers(0, 9))
def test_never_an_arm_that_breaks_a_constraint_while_one_holds(world, deadline_s, seed):
    policy, ctx = CsUcb(np.random.default_rng(seed)), context(deadline_s=deadline_s)
    slack = slack_of(world, ctx)
    for _ in range(5):
        index = policy.select(ctx, world).index
        assert slack[index] >= 0 or not (slack >= 0).any()
        policy.update(feedback(ctx, world, index, reward=float(np.sin(index))))


def test_the_index_is_the_papers():
    policy = CsUcb(np.random.default_rng(0), delta=0.7, theta=2.0, discount=1.0, constrain=False)
    world, ctx = arms_of(2, service_s=[1.0, 12.0]), context(deadline_s=10.0)
    for index, reward in ((0, 0.5), (0, 0.1), (1, 0.9)):
        policy.update(feedback(ctx, world, index, reward))
    radius = [0.7 * np.sqrt(np.log(3) / 2), 0.7 * np.sqrt(np.log(3) / 1)]
    expected = [0.3 + radius[0], 0.9 + radius[1] - 2.0 * 0.2]
    np.testing.assert_allclose(policy.select(ctx, world).scores, expected)


def test_every_arm_that_holds_is_pulled_once_first():
    policy, world = CsUcb(np.random.default_rng(0)), arms_of(6, service_s=[1, 1, 1, 1, 1, 99.0])
    pulled = []
    for _ in range(5):
        index = policy.select(context(deadline_s=10.0), world).index
        pulled.append(index)
        policy.update(feedback(context(deadline_s=10.0), world, index, 0.0))
    assert sorted(pulled) == [0, 1, 2, 3, 4]


def test_classes_learn_apart():
    policy, world = CsUcb(np.random.default_rng(0), delta=0.0), arms_of(2)
    for service_class, best in (("interactive", 0), ("batch", 1)):
        for index in range(2):
            ctx = context(service_class=service_class)
            policy.update(feedback(ctx, world, index, reward=float(index == best)))
    assert policy.select(context(service_class="interactive"), world).index == 0
    assert policy.select(context(service_class="batch"), world).index == 1


@pytest.mark.parametrize(("infeasible", "chosen"), [("largest_slack", 1), ("least_loaded", 0), ("reject", REFUSED)])
def test_what_happens_when_nothing_holds_is_a_setting(infeasible, chosen):
    world = arms_of(2, service_s=[9.0, 7.0], load=[0.0, 4.0])
    policy = CsUcb(np.random.default_rng(0), infeasible=infeasible)
    assert policy.select(context(deadline_s=5.0), world).index == chosen


@pytest.mark.parametrize("bad", [{"infeasible": "pray"}, {"discount": 0.0}, {"discount": 1.5}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"infeasible|discount"):
        CsUcb(np.random.default_rng(0), **bad)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_statistics_equal_a_recomputation_from_the_log(discount):
    rng, statistics = np.random.default_rng(4), blank_statistics(4, 3)
    log = [(int(rng.integers(3)), int(rng.integers(4)), float(rng.normal())) for _ in range(200)]
    for group, arm, reward in log:
        learn_reward(statistics, 0, group, arm, reward, discount)
    for group in range(3):
        mine = [(arm, reward) for number, arm, reward in log if number == group]
        weights = discount ** np.arange(len(mine) - 1, -1, -1)
        rewards = np.array([reward for _, reward in mine])
        for arm in range(4):
            picked = np.array([entry[0] == arm for entry in mine])
            count, total = statistics.counts[0][group][arm], statistics.sums[0][group][arm]
            assert count == pytest.approx(weights[picked].sum())
            assert mean_reward(total, count) == pytest.approx((weights * rewards)[picked].sum() / weights[picked].sum())
        assert statistics.totals[0][group] == pytest.approx(weights.sum())


def test_memory_stays_bounded_however_many_classes_and_arms_come_and_go():
    policy, old = CsUcb(np.random.default_rng(0)), arms_of(50).table
    for generation in range(60):
        table = replace(old, arm_ids=tuple(f"gen{generation}-n{row}/m" for row in range(50)))
        world = arms_of(50, table=table)
        for row in range(50):
            ctx = context(task_id="t", service_class=f"class-{generation}-{row}")
            policy.update(feedback(ctx, world, row, reward=1.0))
        policy.select(context(task_id="t"), world)
    assert len(policy.known_arms(TaskKind.LLM)) < 600
    assert len(policy.known_groups()) < MOST_GROUPS
    assert len(policy.state.statistics.counts[0]) == MOST_GROUPS
    assert len(policy.state.statistics.counts[0][0]) <= 1024


def bandit_regret(policy: CsUcb, means: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Cumulative regret when the k-th pull of arm a pays draws[a, k]."""
    rounds = draws.shape[1]
    world, lost, pulls = arms_of(len(means)), np.zeros(rounds), np.zeros(len(means), dtype=int)
    for step in range(rounds):
        ctx = context(float(step), task_id=f"t{step}")
        index = policy.select(ctx, world).index
        policy.update(feedback(ctx, world, index, float(draws[index, pulls[index]])))
        pulls[index] += 1
        lost[step] = means.max() - means[index]
    return np.cumsum(lost)


def pays(means: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((len(means), rounds)) < means[:, None]).astype(float)


def test_regret_grows_slower_than_time():
    means = np.array([0.3, 0.5, 0.55, 0.8])
    runs = [bandit_regret(CsUcb(np.random.default_rng(s), discount=1.0), means, pays(means, 1500, s)) for s in range(3)]
    regret = np.mean(runs, axis=0)
    assert regret[1499] - regret[749] < 0.5 * (regret[749] - regret[0])
    assert regret[-1] < 0.06 * 1500 * (means.max() - means.mean())


def test_regret_is_that_of_mabwisers_ucb1():
    """With one class, no binding constraint, γ = 1 and δ = √2 the two indices are one formula; so are the rewards."""
    mab = pytest.importorskip("mabwiser.mab", reason="mabwiser is not installed: pip install mabwiser")
    means, rounds = np.array([0.2, 0.4, 0.5, 0.7]), 300
    ours, theirs = [], []
    for seed in range(4):
        draws = pays(means, rounds, seed)
        ours.append(bandit_regret(CsUcb(np.random.default_rng(seed), delta=np.sqrt(2), discount=1.0), means, draws)[-1])
        peer = mab.MAB(list(range(4)), mab.LearningPolicy.UCB1(alpha=1.0), seed=seed)
        peer.fit(list(range(4)), draws[:, 0].tolist())
        pulls = np.ones(4, dtype=int)
        for _ in range(rounds - 4):
            arm = peer.predict()
            peer.partial_fit([arm], [draws[arm, pulls[arm]]])
            pulls[arm] += 1
        theirs.append(float(pulls @ (means.max() - means)))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.05)


def test_a_slot_is_placed_nearest_deadline_first():
    arrivals = {arrival.task.task_id: arrival for arrival in llm_arrivals(40.0, 200, seed=2)}
    run = QueueModel(fleet(), CoreSettings(policy="cs_ucb.slotted"), seed=1).play(arrivals.values())
    by_slot: dict[float, list[float]] = {}
    for action in run.dispatched:
        arrival = arrivals[action.placement.task_id]
        by_slot.setdefault(action.placement.decided_at_s, []).append(arrival.at_s + arrival.task.deadline_s)
    assert max(map(len, by_slot.values())) > 1
    assert all(due == sorted(due) for due in by_slot.values())
    assert len(run.dispatched) + len(run.rejected) == 200
