"""The reference of the reward: the 95th percentile of the last joules, as numpy has it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.rules.reward import STRIDE, WINDOW, RewardWeights, blank_rewards, observe_joules, quantile


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40), st.floats(0.0, 1.0))
def test_a_quantile_is_numpys(values, share):
    assert quantile(sorted(values), len(values), share) == np.quantile(np.array(values), share)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=700))
def test_the_reference_is_the_percentile_of_the_window_when_it_was_last_refreshed(values):
    state = blank_rewards(RewardWeights())
    reward, window = state.rewards[0], state.window[0]
    assert reward.reference_joules == 1.0, "before the first answer"
    for value in values:
        observe_joules(reward, window, value)
    refreshed = len(values) if len(values) < STRIDE else len(values) - len(values) % STRIDE
    seen = values[:refreshed][-WINDOW:]
    assert reward.reference_joules == pytest.approx(float(np.quantile(seen, 0.95)))
