"""Predicted answer lengths against what is true of simulated answers."""

import numpy as np
import pytest

from skyshore.profiling.output_length import OutputLength, OutputLengths


def trained(lengths, limits) -> OutputLength:
    model = OutputLength()
    for length, limit in zip(lengths, limits, strict=True):
        model.observe(min(int(length), int(limit)), int(limit))
    return model


@pytest.mark.parametrize("mean", [20.0, 150.0, 600.0])
def test_the_expectation_comes_near_the_truth_under_censoring(mean):
    rng = np.random.default_rng(1)
    lengths = rng.lognormal(np.log(mean), 0.6, 3000) + 1
    limits = rng.choice([32, 128, 512, 4096], 3000)
    model = trained(lengths, limits)
    for limit in (32, 256, 2048):
        assert model.expect(limit) == pytest.approx(np.minimum(lengths, limit).mean(), rel=0.15)


def test_answers_that_were_cut_do_not_pull_the_prediction_down():
    model = trained([1000] * 500, [64] * 490 + [4096] * 10)
    assert model.expect(64) == pytest.approx(64, rel=0.1)
    assert model.expect(4096) > 400


def test_nothing_seen_means_the_prior_bounded_by_the_limit():
    model = OutputLength()
    assert model.expect(1_000_000) == pytest.approx(128, rel=1e-6)
    assert 0 < model.expect(1) <= 1
    assert model.expect(16) < 16


def test_it_follows_a_change():
    model = trained([400] * 1500 + [20] * 1500, [4096] * 3000)
    assert model.expect(4096) < 60


def test_classes_are_apart_and_their_number_is_bounded():
    models = OutputLengths(most=2)
    for _ in range(500):
        models.observe("short", 10, 1000)
        models.observe("long", 700, 1000)
        for stranger in range(20):
            models.observe(f"s{stranger}", 200, 1000)
    assert models.expect("short", 1000) < 30
    assert models.expect("long", 1000) > 300
    assert models.expect("s3", 1000) == models.expect("s19", 1000)
    assert len(models._models) == 2


def test_an_answer_that_may_not_end_early_has_its_full_length():
    assert OutputLengths().expect("any", 77, to_the_limit=True) == 77.0
