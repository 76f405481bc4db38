"""The yardstick's quantile is numpy's, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skyshore.profiling.reward import RunningQuantile, quantile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=260), st.floats(0, 1))
def test_quantile_is_numpys(values, share):
    assert quantile(sorted(values), share) == np.quantile(np.array(values), share)


def test_the_yardstick_follows_the_last_window():
    yardstick = RunningQuantile(window=16)
    for value in [1000.0] * 16 + [2.0] * 16:
        yardstick.observe(value)
    assert yardstick.value == 2.0
