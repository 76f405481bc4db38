"""Arithmetic of the DSP bench that no run would show to be wrong."""

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")
pytest.importorskip("onnx", reason="onnx is not installed (extra [cloud])")

from benchmarks.dsp import _crossing
from benchmarks.dsp_prediction import INFINIBAND, pair_s, predictions
from cloud_node.dsp.cost import Fabric


def test_break_even_is_read_off_between_the_two_rates_around_it() -> None:
    assert _crossing([(30, 3.0), (60, 1.5), (120, 0.75)]) == pytest.approx(60 * 2 ** (0.5 / 0.75))
    assert _crossing([(30, 0.9), (60, 0.5)]) is None
    assert _crossing([(30, 3.0), (60, 1.5)]) is None


def test_a_prediction_is_computation_over_n_plus_what_travels() -> None:
    endless = Fabric(400e12, 1e30)
    assert pair_s("dsp", 8, 64, endless) == pytest.approx(pair_s("dsp", 1, 64, endless) / 8)
    slow = Fabric(1e30, 1e9)
    assert pair_s("ulysses", 8, 64, slow) == pytest.approx(2 * pair_s("dsp", 8, 64, slow))
    assert pair_s("ulysses-flattened", 8, 64, slow) == pytest.approx(4 * pair_s("dsp", 8, 64, slow))
    waiting = Fabric(1e30, 1e30, 1e-3)
    assert pair_s("ring", 8, 64, waiting) == pytest.approx(7e-3)
    assert pair_s("dsp", 1, 64, INFINIBAND.fabric) > pair_s("dsp", 16, 64, INFINIBAND.fabric)


def test_every_prediction_says_that_it_is_one_and_from_what() -> None:
    for metric in predictions():
        assert metric.metric.startswith("predicted")
        assert all(word in metric.note for word in ("not a measurement", "α =", "β =", "R ="))
        assert metric.aim is None
