"""Off-policy estimates on a synthetic logged bandit whose truth is known, and logs that are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.errors import InvalidTask
from skyshore.report.off_policy import Logged, cross_fitted, doubly_robust, ips, require_support, snips

ARMS, ROWS = 4, 800
ESTIMATES = ("ips", "snips", "dr")


def synthetic(seed: int) -> tuple[Logged, np.ndarray, np.ndarray, np.ndarray, float]:
    """A context is a number x; arm a pays 1 with probability s(x, a); the policy in question takes the best by x."""
    rng = np.random.default_rng(seed)
    x = rng.random(ROWS)
    pays = 0.15 + 0.7 * np.abs(np.arange(ARMS) / ARMS - x[:, None])
    chances = np.full((ROWS, ARMS), 0.1) + 0.6 * (np.arange(ARMS) == (x[:, None] * ARMS).astype(int))
    logged = (rng.random((ROWS, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=ARMS - 1)
    chosen = np.where(x < 0.5, ARMS - 1, 0)
    outcome = (rng.random(ROWS) < pays[np.arange(ROWS), logged]).astype(float)
    # E over x in U[0, 1] of the chosen arm's chance: 0.15 + 0.7·(mean of 0.75 − x below a half, of x above it)
    truth = 0.15 + 0.7 * (0.5 * 0.5 + 0.5 * 0.75)
    features = np.stack([np.abs(arm / ARMS - x) for arm in (logged, chosen)])[:, :, None]
    return Logged(chances[np.arange(ROWS), logged], logged == chosen), outcome, features[0], features[1], truth


def test_estimates_are_unbiased_and_their_intervals_cover():
    values = {name: [] for name in ESTIMATES}
    covered = dict.fromkeys(ESTIMATES, 0)
    for seed in range(300):
        logged, outcome, of_logged, of_chosen, truth = synthetic(seed)
        found = (
            ips(logged, outcome),
            snips(logged, outcome),
            doubly_robust(logged, outcome, *cross_fitted(of_logged, of_chosen, outcome)),
        )
        for name, estimated in zip(ESTIMATES, found, strict=True):
            values[name].append(estimated.value)
            covered[name] += estimated.low <= truth <= estimated.high
    for name in ESTIMATES:
        assert np.mean(values[name]) == pytest.approx(truth, abs=4 * np.std(values[name]) / np.sqrt(300)), name
        assert 0.91 <= covered[name] / 300 <= 0.98, name
    assert np.std(values["dr"]) < np.std(values["ips"])


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_a_model_that_is_plainly_wrong_leaves_doubly_robust_unbiased(seed):
    """Each estimate alone is noisy; over a hundred logs their mean is the truth."""
    wrong = np.random.default_rng(seed).normal(size=2)
    values = []
    for log in range(100):
        logged, outcome, _, _, truth = synthetic(1000 + log)
        values.append(doubly_robust(logged, outcome, np.full(ROWS, wrong[0]), np.full(ROWS, wrong[0])).value)
    assert np.mean(values) == pytest.approx(truth, abs=5 * np.std(values) / 10)


def test_a_log_of_the_policy_itself_gives_its_plain_mean():
    outcome = np.random.default_rng(0).random(500)
    own = Logged(np.ones(500), np.ones(500, dtype=bool))
    require_support(own)
    assert ips(own, outcome).value == pytest.approx(outcome.mean())
    assert snips(own, outcome).value == pytest.approx(outcome.mean())
    assert own.effective_samples == pytest.approx(500)


@pytest.mark.parametrize(
    ("propensity", "matches", "said"),
    [
        ([], [], "no decision with its context"),
        ([0.5, 0.0] * 50, [True, False] * 50, "outside"),
        ([1.0] * 100, [True, False] * 50, "without chance"),
        ([0.25] * 100, [True] * 5 + [False] * 95, "only 5 of 100"),
    ],
)
def test_a_log_that_cannot_answer_is_refused_with_what_to_do(propensity, matches, said):
    with pytest.raises(InvalidTask, match=said) as refused:
        require_support(Logged(np.array(propensity, float), np.array(matches, bool)))
    assert not len(propensity) or "random" in refused.value.message
