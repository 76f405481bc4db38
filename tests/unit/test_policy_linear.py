"""LinUCB and the primal–dual bandit: against ridge regression by the book, and their promises of regret and price."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.outcome import OutcomeStatus, WorkerOutcome
from skyshore.policies.learning.arm_features import NAMES, WIDTH, arm_features
from skyshore.policies.learning.ridge import RidgeModels
from skyshore.policies.papers.linucb import LinUcb
from skyshore.policies.papers.primal_dual import MOST_CLASSES, PrimalDual
from tests.fakes.arms import arms_of, context, feedback, worlds


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), discount=st.sampled_from([1.0, 0.9]), count=st.integers(0, 40))
def test_weights_and_widths_are_those_of_ridge_regression_by_the_book(seed, discount, count):
    rng, models = np.random.default_rng(seed), RidgeModels(3, 2, prior=0.7, discount=discount)
    log = [(int(rng.integers(3)), rng.normal(size=3), rng.normal(size=2)) for _ in range(count)]
    for arm, x, y in log:
        models.learn(f"n{arm}/m", x, y)
    asked = rng.normal(size=(3, 3))
    predicted, width = models.read(arms_of(3), asked)
    for arm in range(3):
        xs = np.array([x for a, x, _ in log if a == arm]).reshape(-1, 3)
        ys = np.array([y for a, _, y in log if a == arm]).reshape(-1, 2)
        weight = np.sqrt(discount ** np.arange(len(xs) - 1, -1, -1))[:, None]
        # λ‖w‖² as three more observations of nothing.
        rows, wanted = np.vstack([weight * xs, np.sqrt(0.7) * np.eye(3)]), np.vstack([weight * ys, np.zeros((3, 2))])
        solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        np.testing.assert_allclose(predicted[arm], asked[arm] @ solution, atol=1e-9)
        spread = asked[arm] @ np.linalg.solve(rows.T @ rows, asked[arm])
        assert width[arm] == pytest.approx(np.sqrt(spread))


@settings(max_examples=30, deadline=None)
@given(world=worlds(), deadline_s=st.floats(0.1, 60.0))
def test_features_of_a_row_are_the_features_of_its_estimate(world, deadline_s):
    ctx = context(deadline_s=deadline_s)
    rows = arm_features(world, ctx)
    assert rows.shape == (len(world), WIDTH) == (len(world), len(NAMES))
    for index in range(len(world)):
        np.testing.assert_allclose(arm_features(world.estimate(index), ctx), rows[index])


def linear_regret(policy: LinUcb | PrimalDual, rounds: int, seed: int) -> np.ndarray:
    """Cumulative regret where each arm pays a linear function of its features, which change every round."""
    rng = np.random.default_rng(seed)
    true, lost = rng.normal(scale=0.5, size=(5, WIDTH)), np.zeros(rounds)
    for step in range(rounds):
        world = arms_of(5, service_s=rng.uniform(0.1, 4, 5), queue_s=rng.uniform(0, 4, 5), joules=rng.uniform(1, 90, 5))
        ctx = context(float(step), deadline_s=4.0)
        pays = (arm_features(world, ctx) * true).sum(axis=1)
        index = policy.select(ctx, world).index
        policy.update(feedback(ctx, world, index, float(pays[index] + 0.1 * rng.normal())))
        lost[step] = pays.max() - pays[index]
    return np.cumsum(lost)


def test_regret_of_linucb_grows_slower_than_time_where_rewards_are_linear():
    runs = [linear_regret(LinUcb(np.random.default_rng(0), discount=1.0), 1200, seed) for seed in range(3)]
    regret = np.mean(runs, axis=0)
    assert regret[1199] - regret[599] < 0.25 * regret[599]


def test_a_latency_filter_keeps_late_arms_out_while_another_is_in_time():
    world = arms_of(3, service_s=[9.0, 1.0, 9.0])
    free, filtered = LinUcb(np.random.default_rng(0)), LinUcb(np.random.default_rng(0), constrain=True)
    for policy in (free, filtered):
        for _ in range(20):
            policy.update(feedback(context(deadline_s=5.0), world, 0, reward=5.0))
    assert free.select(context(deadline_s=5.0), world).index == 0
    assert filtered.select(context(deadline_s=5.0), world).index == 1
    assert filtered.select(context(deadline_s=0.5), world).index >= 0


def play(policy: PrimalDual, rounds: int, *, cheap_misses: float) -> np.ndarray:
    """Arm 0 costs little and misses often, arm 1 costs ten times as much and never misses; which was chosen."""
    rng, chosen = np.random.default_rng(5), np.zeros(rounds, dtype=int)
    world = arms_of(2)
    for step in range(rounds):
        ctx = context(float(step))
        index = chosen[step] = policy.select(ctx, world).index
        late = index == 0 and rng.random() < cheap_misses
        spent = WorkerOutcome(inference_joules=20.0 if index else 2.0)
        status = OutcomeStatus.DEADLINE_EXCEEDED if late else OutcomeStatus.OK
        policy.update(feedback(ctx, world, index, status=status, worker=spent))
    return chosen


def test_the_price_of_misses_holds_them_at_their_share():
    late = play(PrimalDual(np.random.default_rng(0), miss_share=0.1), 4000, cheap_misses=0.5)[2000:]
    assert np.mean(late == 0) == pytest.approx(0.2, abs=0.07)  # half of them miss: a tenth of all
    safe = play(PrimalDual(np.random.default_rng(0), miss_share=0.1), 1000, cheap_misses=0.0)[500:]
    assert np.mean(safe == 0) > 0.9


def test_prices_stay_within_bounds_and_classes_too():
    policy, world = PrimalDual(np.random.default_rng(0), largest_price=3.0), arms_of(2)
    for step in range(300):
        ctx = context(float(step), service_class=f"c{step}", min_quality=0.9)
        policy.update(feedback(ctx, world, 0, status=OutcomeStatus.FAILED))
    assert len(policy._prices) <= MOST_CLASSES + 1
    assert all(0 <= price <= 3.0 for pair in policy._prices.values() for price in pair)


@pytest.mark.parametrize("bad", [{"prior": 0.0}, {"discount": 0.0}, {"discount": 1.1}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="prior"):
        LinUcb(np.random.default_rng(0), **bad)


def test_regret_is_that_of_mabwisers_linucb():
    """With γ = 1, no filter and the same λ and α the two are one index over disjoint models."""
    mab = pytest.importorskip("mabwiser.mab", reason="mabwiser is not installed: pip install mabwiser")
    ours, theirs = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        true = rng.normal(scale=0.5, size=(3, WIDTH))
        world = arms_of(3)
        policy = LinUcb(np.random.default_rng(0), alpha=0.5, discount=1.0)
        peer = mab.MAB([0, 1, 2], mab.LearningPolicy.LinUCB(alpha=0.5, l2_lambda=1.0), seed=seed)
        lost = np.zeros(2)
        for step in range(250):
            ctx = context(float(step), deadline_s=float(rng.uniform(0.5, 6)))
            x = arm_features(world, ctx)  # alike for all arms, as the peer has it
            pays, noise = true @ x[0], 0.1 * rng.normal()
            chosen = policy.select(ctx, world).index
            policy.update(feedback(ctx, world, chosen, float(pays[chosen] + noise)))
            picked = int(peer.predict(x[:1].tolist())) if step else 0
            learn = peer.partial_fit if step else peer.fit
            learn([picked], [float(pays[picked] + noise)], x[:1].tolist())
            lost += pays.max() - np.array([pays[chosen], pays[picked]])
        ours.append(lost[0])
        theirs.append(lost[1])
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.05)
