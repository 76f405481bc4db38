"""Rules of learning on plain records: rewards, statistics, choices among scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.rules.choose import decide, learn, learn_attempt, score_by_load, take_best, take_first_best
from skyshore.rules.confidence import confidence_index
from skyshore.rules.records import ATTEMPT, DECISION, DEMAND, ESTIMATE, EXPIRED, KINDS, NONE, OK, Options, put, rows
from skyshore.rules.reward import STRIDE, WINDOW, RewardWeights, blank_rewards, measured_slack, note_reward, quantile
from skyshore.rules.statistics import blank_statistics, forget_arm, learn_reward, mean_reward, with_slots

WEIGHTS = RewardWeights(transmission=1.0, inference=2.0, idle=0.5, constraint=1.5)


def options_of(*scores: float) -> Options:
    options = Options(
        rows(DECISION, 1, arrays=False), rows(ESTIMATE, len(scores), arrays=False), [float(score) for score in scores]
    )
    options.decision[0].count = len(scores)
    return options


def test_the_best_is_drawn_among_equals_and_says_how_likely():
    rng, drawn = np.random.default_rng(0), []
    for _ in range(600):
        options = options_of(1, 3, 2, 3, 3)
        take_best(rng, options)
        decision = options.decision[0]
        assert (decision.ties, decision.propensity, decision.scores) == (3, 1 / 3, 1)
        drawn.append(decision.index)
    assert np.bincount(drawn, minlength=5).tolist()[::2] == [0, 0, drawn.count(4)]
    assert min(drawn.count(index) for index in (1, 3, 4)) > 150


def test_nothing_is_drawn_where_one_is_best():
    options = options_of(1, 3, 2)
    take_best(None, options)
    assert (options.decision[0].index, options.decision[0].propensity) == (1, 1.0)
    take_first_best(options_of(1, 3, 3))
    options = options_of(1, 3, 3)
    take_first_best(options)
    assert options.decision[0].index == 1


def test_load_is_scored_as_a_share_of_capacity():
    options = options_of(0, 0)
    put(options.estimates[0], {"load": 2.0, "capacity": 8.0})
    put(options.estimates[1], {"load": 1.0, "capacity": 2.0})
    score_by_load(options)
    assert options.scores == [-0.25, -0.5]


def test_a_state_without_a_rule_decides_and_learns_nothing():
    options = options_of(1)
    put(options.decision[0], {"index": 0, "ties": 3, "scores": 1, "transient": 1})
    decide(None, rows(DEMAND, 1, arrays=False)[0], options)
    decision = options.decision[0]
    assert (decision.index, decision.ties, decision.scores, decision.transient) == (NONE, 1, 0, 0)
    attempt = rows(ATTEMPT, 1, arrays=False)[0]
    assert learn_attempt(None, attempt, 1.0) is learn(None, attempt, 1.0) is None


def test_the_index_is_mean_plus_radius_minus_penalty():
    assert confidence_index(0.5, 4.0, 1.0, 0.3, 2.0, 9.0) == 0.5 + 2.0 * 0.5
    assert confidence_index(0.5, 4.0, 1.0, -0.1, 2.0, 9.0) == pytest.approx(1.5 - 0.9)


# ------------------------------------------------------------------------------------------------- reward


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_the_quantile_is_numpys(values, share):
    ascending = sorted(values)
    assert quantile(ascending, len(ascending), share) == np.quantile(ascending, share)


def test_slack_is_measured_and_a_failure_costs_all():
    assert measured_slack(True, 2.0, 8.0, 0.9) == 0.75
    assert measured_slack(True, 2.0, 8.0, 0.1) == 0.1
    assert measured_slack(True, 99.0, 8.0, 0.1) == -1.0
    assert measured_slack(False, 2.0, 8.0, 0.9) == -1.0


def reward_of(state, joules: float, status: int = OK, kind: int = 0) -> float:
    attempt = rows(ATTEMPT, 1, arrays=False)[0]
    values = {"inference_joules": joules / 2.0, "measured_s": 1.0, "deadline_s": 2.0, "spare_share": 1.0}
    put(attempt, values | {"status": status, "kind": kind})
    note_reward(state, attempt)
    return float(attempt.reward)


def test_joules_count_against_the_95th_percentile_of_the_last_answers():
    state, rng = blank_rewards(WEIGHTS), np.random.default_rng(1)
    joules = rng.uniform(1.0, 100.0, 2 * WINDOW)
    for value in joules:
        reward_of(state, float(value))
    expected = np.quantile(joules[-WINDOW:], 0.95)
    assert state.rewards[0].reference_joules == pytest.approx(expected)
    assert reward_of(state, 50.0) == pytest.approx(-50.0 / expected + 1.5 * 0.5)
    assert reward_of(state, 1e6) == pytest.approx(-2.0 + 1.5 * 0.5), "one outlier is cut"
    assert reward_of(state, 0.0) == 1.5 * 0.5, "an answer without joules moves nothing"
    assert reward_of(state, 0.0, EXPIRED) == -1.5


def test_the_reference_moves_at_each_of_the_first_answers_then_now_and_then():
    state, moved, before = blank_rewards(WEIGHTS), [], 1.0
    for number in range(1, 2 * STRIDE + 1):
        reward_of(state, 10.0 * number)
        if state.rewards[0].reference_joules != before:
            before = state.rewards[0].reference_joules
            moved.append(number)
    assert moved == [*range(1, STRIDE + 1), 2 * STRIDE]
    assert [state.rewards[kind].seen for kind in range(KINDS)] == [2 * STRIDE, 0, 0]


# --------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_statistics_are_discounted_counts_and_sums(discount):
    state = blank_statistics(3, groups=2)
    log = [(0, 1.0), (1, 0.5), (0, 0.0), (2, 0.25), (0, 1.0)]
    for slot, reward in log:
        learn_reward(state, 1, 0, slot, reward, discount)
    weights = [discount**age for age in range(len(log) - 1, -1, -1)]
    for slot in range(3):
        mine = [(weight, reward) for weight, (each, reward) in zip(weights, log, strict=True) if each == slot]
        assert state.counts[1][0][slot] == pytest.approx(sum(weight for weight, _ in mine))
        assert state.sums[1][0][slot] == pytest.approx(sum(weight * reward for weight, reward in mine))
    assert state.totals[1][0] == pytest.approx(sum(weights))
    assert (state.totals[1][1], state.totals[0][0]) == (0.0, 0.0), "other classes and kinds know nothing of it"


@pytest.mark.parametrize("arrays", [False, True])
def test_room_for_more_arms_keeps_what_is_known(arrays):
    state = blank_statistics(2, groups=2)
    learn_reward(state, 0, 1, 1, 0.5, 1.0)
    if arrays:
        state = type(state)(*(np.array(values) for values in state))
    assert with_slots(state, 2) is state
    roomy = with_slots(state, 3)
    assert len(roomy.counts[0][1]) == len(roomy.sums[2][0]) == 4
    assert (roomy.counts[0][1][1], roomy.sums[0][1][1], roomy.counts[0][1][3]) == (1.0, 0.5, 0.0)
    forget_arm(roomy, 0, 1)
    assert (roomy.counts[0][1][1], roomy.sums[0][1][1], roomy.totals[0][1]) == (0.0, 0.0, 0.0)


def test_a_mean_without_outcomes_is_0():
    assert (mean_reward(0.0, 0.0), mean_reward(3.0, 2.0)) == (0.0, 1.5)
