"""What `skyshore` states of deadlines comes true: coverage under exchangeable noise, and how soon after a drift.

All draws are seeded, so every run sees the same examples and has the same result.
"""

import math

import numpy as np
import pytest

from skyshore.domain.outcome import OutcomeStatus, WorkerOutcome
from skyshore.policies.own.skyshore import Skyshore
from skyshore.policies.protocol import REFUSED
from skyshore.rules.miss_risk import FORGET
from tests.fakes.arms import arms_of, context, feedback
from tests.fakes.skyshore_rules import RiskCurve

GRID = np.linspace(-3.0, 8.0, 1101)
NOISES = {
    "bell-shaped": lambda rng: rng.normal(0.0, 1.0),
    "skewed": lambda rng: rng.lognormal(0.0, 0.8) - 1.4,
    "bounded": lambda rng: rng.uniform(-2.0, 2.0),
    "two modes": lambda rng: rng.normal(3.0 if rng.random() < 0.25 else -0.5, 0.4),
}


def upper_bound(risk: RiskCurve, miscoverage: float) -> float:
    """Smallest score that a later one exceeds with a stated chance of at most `miscoverage`."""
    return float(GRID[np.argmax(risk.chance(GRID) <= miscoverage)])


def covered(risk: RiskCurve, scores: list[float], miscoverage: float) -> np.ndarray:
    """Of each score, whether the bound stated before it was seen held."""
    held = []
    for score in scores:
        held.append(score <= upper_bound(risk, miscoverage))
        risk.observe(score, cut_off=False)
    return np.array(held)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("miscoverage", [0.1, 0.3])
def test_a_bound_covers_as_it_says_under_exchangeable_noise(noise, miscoverage):
    rng = np.random.default_rng(7)
    held = covered(RiskCurve(), [NOISES[noise](rng) for _ in range(4000)], miscoverage)
    assert held[500:].mean() == pytest.approx(1.0 - miscoverage, abs=0.03)


def test_coverage_is_back_after_six_hundred_outcomes_of_a_drift():
    """What is old weighs 0.995 per outcome since: by then less than 5 points of coverage can hang on it."""
    assert FORGET**600 < 0.05
    after, late = [], []
    for seed in range(12):
        rng, risk = np.random.default_rng(seed), RiskCurve()
        covered(risk, list(rng.normal(0.0, 1.0, 800)), 0.1)
        held = covered(risk, list(rng.normal(2.0, 1.0, 1200)), 0.1)
        after.append(held[:50].mean())
        late.append(held[600:].mean())
    assert np.mean(after) < 0.7, "the drift must hurt, or nothing is shown"
    assert np.mean(late) == pytest.approx(0.9, abs=0.05)


def stated_and_met(slowness_from: dict[int, float], steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Chances the policy states of tasks on one noisy arm, and whether they were in time; late ones are cut off.

    `slowness_from` maps a step to the arm's true over its stated time from then on. Room to spare is drawn at random.
    """
    rng, world = np.random.default_rng(seed), arms_of(1, service_s=1.0)
    policy = Skyshore(np.random.default_rng(seed), floor=0.0, ceiling=0.0)
    slowness, stated, met = 1.0, [], []
    for step in range(steps):
        slowness = slowness_from.get(step, slowness)
        deadline_s = slowness * rng.uniform(0.7, 1.8)
        asked = context(10.0 * step, task_id=f"t{step}", deadline_s=deadline_s)
        decision = policy.select(asked, world)
        assert decision.index != REFUSED
        latency_s = slowness * math.exp(rng.normal(0.0, 0.25))
        in_time = latency_s <= deadline_s
        status = OutcomeStatus.OK if in_time else OutcomeStatus.DEADLINE_EXCEEDED
        worker = WorkerOutcome(compute_s=latency_s, inference_joules=10.0) if in_time else WorkerOutcome()
        took_s = min(latency_s, deadline_s)
        policy.update(
            feedback(
                asked, world, 0, status=status, latency_s=took_s, deadline_s=deadline_s, gateway_s=0.0, worker=worker
            )
        )
        stated.append(decision.features[1])
        met.append(in_time)
    return np.array(stated), np.array(met)


def test_the_chances_a_policy_states_come_true_though_late_answers_are_cut_off():
    stated, met = stated_and_met({}, 3000, seed=3)
    stated, met = stated[500:], met[500:]
    assert stated.mean() == pytest.approx(met.mean(), abs=0.04)
    for least, most in ((0.2, 0.6), (0.6, 0.9), (0.9, 1.01)):
        there = (stated >= least) & (stated < most)
        assert there.sum() > 100
        assert met[there].mean() == pytest.approx(stated[there].mean(), abs=0.08), (least, most)


def test_the_chances_come_true_again_three_hundred_outcomes_after_an_arm_grew_slower():
    stated, met = stated_and_met({1000: 2.0}, 2500, seed=5)
    assert stated[1300:].mean() == pytest.approx(met[1300:].mean(), abs=0.05)
