"""Predicted answer lengths against what is true of simulated answers, and of a trace split in time."""

import math
from pathlib import Path

import numpy as np
import pytest

from skyshore.profiling.output_length import LEVELS, OutputLength, OutputLengths, prompt_features
from skyshore.workload.llm_traces import read_azure

TRACE = Path(__file__).parents[3] / "shared" / "data" / "llm" / "AzureLLMInferenceTrace_conv.csv"


def trained(lengths, limits) -> OutputLength:
    model = OutputLength()
    for length, limit in zip(lengths, limits, strict=True):
        model.observe(min(int(length), int(limit)), int(limit))
    return model


def pinball(quantiles, tokens) -> float:
    off = np.log(tokens) - np.log(quantiles)
    levels = np.array(LEVELS)
    return float(np.maximum(levels * off, (levels - 1) * off).sum())


@pytest.mark.parametrize("mean", [20.0, 150.0, 600.0])
def test_the_expectation_comes_near_the_truth_under_censoring(mean):
    rng = np.random.default_rng(1)
    lengths = rng.lognormal(np.log(mean), 0.6, 3000) + 1
    limits = rng.choice([32, 128, 512, 4096], 3000)
    model = trained(lengths, limits)
    for limit in (32, 256, 2048):
        assert model.expect(limit) == pytest.approx(np.minimum(lengths, limit).mean(), rel=0.15)


def test_quantiles_come_near_the_truth_under_censoring():
    rng = np.random.default_rng(2)
    lengths = rng.lognormal(np.log(150), 0.6, 4000) + 1
    model = trained(lengths, rng.choice([128, 512, 4096], 4000))
    truth = np.quantile(lengths, LEVELS)
    assert model.quantiles(prompt_features(400)) == pytest.approx(truth, rel=0.2)


def test_answers_that_were_cut_do_not_pull_the_prediction_down():
    model = trained([1000] * 500, [64] * 490 + [4096] * 10)
    assert model.expect(64) == pytest.approx(64, rel=0.1)
    assert model.expect(4096) > 400


def test_nothing_seen_means_the_prior_bounded_by_the_limit():
    model = OutputLength()
    assert model.expect(1_000_000) == pytest.approx(128, rel=0.05)
    assert 0 < model.expect(1) <= 1
    assert model.expect(16) < 16


@pytest.mark.parametrize("limit", [1, 7, 60, 250, 900, 5000])
def test_the_expectation_is_the_area_under_the_quantile_curve(limit):
    model = trained(np.random.default_rng(0).lognormal(5, 0.8, 500), [4096] * 500)
    levels, values = (0.0, *LEVELS), (0.0, *model.quantiles(prompt_features(400)))
    grid = (np.arange(200_000) + 0.5) / 200_000
    body = np.interp(grid, levels, values)
    mean = (values[-1] - values[-2]) / math.log((1 - LEVELS[-2]) / (1 - LEVELS[-1]))
    tail = values[-1] - mean * np.log((1 - grid) / (1 - LEVELS[-1]))
    drawn = np.where(grid <= LEVELS[-1], body, tail)
    assert model.expect(limit) == pytest.approx(np.minimum(drawn, limit).mean(), rel=1e-3)


def test_it_follows_a_change():
    model = trained([400] * 1500 + [20] * 1500, [4096] * 3000)
    assert model.expect(4096) < 60


def test_prompts_that_differ_get_answers_that_differ():
    model = OutputLength()
    for _ in range(1500):
        model.observe(20, 4096, prompt_features(30, last_turn="Is it? "))
        model.observe(400, 4096, prompt_features(3000, turns=6, last_turn="Go on."))
    assert model.expect(4096, prompt_features(30, last_turn="Is it?")) < 40
    assert model.expect(4096, prompt_features(3000, turns=6, last_turn="Go on.")) > 250


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
    assert len(models.models) == 2


def test_an_answer_that_may_not_end_early_has_its_full_length():
    assert OutputLengths().expect("any", 77, to_the_limit=True) == 77.0


@pytest.fixture(scope="module")
def conversations():
    if not TRACE.is_file():
        pytest.skip(f"Azure's conversation trace is not at {TRACE}")
    with TRACE.open(encoding="utf-8") as lines:
        return read_azure(lines)


def test_quantiles_of_a_later_part_of_a_trace_are_covered_as_their_levels_say(conversations):
    """Every answer is predicted before it is learned from; the first 70 % only teach."""
    model, plain = OutputLength(), OutputLength()
    cut = int(0.7 * len(conversations))
    loss = plain_loss = 0.0
    for number, each in enumerate(conversations):
        features = prompt_features(each.prompt_tokens)
        if number == cut:
            before = [(seen.answers, seen.within) for seen in model.coverage]
        if number >= cut:
            loss += pinball(model.quantiles(features), each.output_tokens)
            plain_loss += pinball(plain.quantiles(prompt_features(400)), each.output_tokens)
        model.observe(each.output_tokens, 4096, features)
        plain.observe(each.output_tokens, 4096)
    later = [
        (seen.within - within) / (seen.answers - answers)
        for seen, (answers, within) in zip(model.coverage, before, strict=True)
    ]
    assert later == pytest.approx(LEVELS, abs=0.02)
    assert loss < 0.85 * plain_loss, "the prompt's features must be worth having"


def test_what_was_learned_in_the_past_holds_for_the_future(conversations):
    """Split in time and frozen: the trace drifts, so this is looser than with learning."""
    model = OutputLength()
    cut = int(0.7 * len(conversations))
    for each in conversations[:cut]:
        model.observe(each.output_tokens, 4096, prompt_features(each.prompt_tokens))
    later = conversations[cut:]
    quantiles = np.array([model.quantiles(prompt_features(each.prompt_tokens)) for each in later])
    covered = (np.array([[each.output_tokens] for each in later]) <= quantiles).mean(axis=0)
    assert covered == pytest.approx(LEVELS, abs=0.1)
