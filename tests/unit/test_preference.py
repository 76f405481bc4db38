"""The preference predictor: streams apart, memory bounded, answers that follow demands, figures the card promises."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from skyshore.profiling.preference import (
    COMPLEXITY_WIDTH,
    WIDTH,
    PreferenceNetwork,
    PreferencePredictor,
    preference_features,
)
from tests.fakes.small_fleet import video_task

PICTURE = (0.05, 0.02, 0.02, 0.01, 0.01, 0.005, 0.002, 0.001, 6.5)


def predictor(most: int = 4096) -> PreferencePredictor:
    return PreferencePredictor(PreferenceNetwork.shipped(), most)


def test_features_keep_what_they_are_given_apart():
    base = preference_features(0, PICTURE, 0.5, 2.0)
    assert base.shape == (WIDTH,)
    changed = [
        preference_features(3, PICTURE, 0.5, 2.0),
        preference_features(0, (*PICTURE[:-1], 7.0), 0.5, 2.0),
        preference_features(0, PICTURE, 0.6, 2.0),
        preference_features(0, PICTURE, 0.5, 4.0),
    ]
    differing = [np.flatnonzero(base != other).tolist() for other in changed]
    assert differing == [[0], [COMPLEXITY_WIDTH], [WIDTH - 2], [WIDTH - 1]]


@pytest.mark.parametrize("complexity", [(), PICTURE[:3], (*PICTURE, 1.0, 2.0)])
def test_a_vector_of_another_length_is_no_mistake(complexity):
    assert 0 <= predictor().predict(video_task(), 10, complexity) <= 1


def test_an_accuracy_no_edge_model_has_means_compute_and_none_at_all_bandwidth():
    high = predictor().predict(video_task(min_quality=0.9, deadline_s=5.0), 10, PICTURE)
    low = predictor().predict(video_task(min_quality=0.2, deadline_s=5.0), 10, PICTURE)
    assert high > 0.5 > low


def test_segments_of_a_job_are_a_stream_and_jobs_do_not_meddle():
    mixed, alone = predictor(), predictor()
    other = video_task(job_id="b", min_quality=0.9)
    mine = replace(other, job_id="a", min_quality=0.4)
    answers = []
    for _ in range(4):
        answers.append(mixed.predict(mine, 10, PICTURE))
        mixed.predict(other, 10, PICTURE)
    assert answers == [alone.predict(mine, 10, PICTURE) for _ in range(4)]
    assert len(set(answers)) > 1  # the stream's past counts


def test_tasks_without_a_job_leave_nothing_behind():
    these = predictor()
    first = these.predict(video_task(), 10, PICTURE)
    assert these.predict(video_task(), 10, PICTURE) == first
    assert not these._streams


def test_streams_are_forgotten_beyond_the_bound_oldest_first():
    these = predictor(most=3)
    for name in "abcdbe":
        these.predict(video_task(job_id=name), 10, PICTURE)
    assert list(these._streams) == ["d", "b", "e"]


def test_the_card_says_how_far_the_network_beats_a_threshold_on_complexity():
    card = json.loads(files("skyshore.profiling").joinpath("weights/preference.json").read_text())
    figures, margin = card["heldout_figures"], card["macro_f1_margin_over_threshold"]
    assert margin["mean"] - margin["half_width"] > 0.1
    assert figures["lstm_macro_f1"]["mean"] > figures["logistic_macro_f1"]["mean"]
    assert figures["lstm_accuracy"]["mean"] > figures["always_compute_accuracy"]["mean"]
    assert 0.3 < figures["share_compute"]["mean"] < 0.7


def test_demands_count_per_frame():
    few, many = video_task(min_quality=0.4, deadline_s=0.3), video_task(min_quality=0.4, deadline_s=3.0)
    assert predictor().predict(few, 1, PICTURE) == pytest.approx(predictor().predict(many, 10, PICTURE), abs=1e-6)
    assert predictor().predict(few, 10, PICTURE) > predictor().predict(few, 1, PICTURE)
