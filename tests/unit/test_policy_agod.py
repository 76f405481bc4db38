"""AGOD's actor: the schedule of its paper, the order of arms of no consequence, and better than guessing."""

import json
from importlib.resources import files

import numpy as np
import pytest

from skyshore.policies.papers.agod import STEPS, Agod, DiffusionActor, agod_state, schedule
from tests.fakes.arms import arms_of, context


def world(rng: np.random.Generator):
    return arms_of(6, service_s=rng.uniform(0.2, 4, 6), queue_s=rng.uniform(0, 4, 6), joules=rng.uniform(5, 90, 6))


def test_the_schedule_preserves_variance():
    """q(x_t | x_0) has mean √ᾱ·x₀ and variance 1 − ᾱ; the posterior's weights must agree with it at both ends."""
    whole, rest, of_start, of_now = schedule()
    np.testing.assert_allclose(whole**2 - rest**2, 1.0)
    kept = 1 / whole**2
    assert len(kept) == STEPS
    assert (np.diff(kept) < 0).all()
    assert kept[-1] < 0.01  # the last step is all but pure noise
    assert (of_start[0], of_now[0]) == pytest.approx((1.0, 0.0))  # the first step's posterior is x₀ itself
    # Mean of x_{t−1} given x₀, through x_t: √ᾱ_{t−1}·x₀.
    np.testing.assert_allclose(of_start[1:] + of_now[1:] * np.sqrt(kept[1:]), np.sqrt(kept[:-1]))


def test_the_order_of_arms_does_not_matter():
    rng = np.random.default_rng(0)
    state, order = agod_state(world(rng), context(deadline_s=4.0)), rng.permutation(6)
    actor = DiffusionActor.shipped()
    np.testing.assert_allclose(actor.logits(state)[order], actor.logits(state[order]), atol=1e-9)


def test_the_trained_actor_prefers_arms_that_keep_the_deadline():
    rng, policy, kept, guessed = np.random.default_rng(1), Agod(np.random.default_rng(0)), 0, 0.0
    for _ in range(200):
        arms, ctx = world(rng), context(deadline_s=4.0)
        in_time = arms.latency_s <= 4.0
        kept += bool(in_time[policy.select(ctx, arms).index])
        guessed += float(in_time.mean())
    assert kept > 1.15 * guessed


def test_the_card_holds_it_above_random_on_fleets_it_never_met():
    figures = json.loads(files("skyshore.policies").joinpath("weights/agod.json").read_text())["heldout_figures"]
    assert figures["agod"]["mean_attainment"] > figures["random"]["mean_attainment"]
    assert figures["agod"]["joules_per_met"] < figures["random"]["joules_per_met"]
