"""Detection quality against cases worked by hand, and against a slow second implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.domain.video import Detection
from skyshore.nodemodel.frontier import pareto_frontier
from skyshore.profiling.detection_quality import average_precision, detection_quality, iou_matrix


def box(x, y, side=10.0, score=1.0, label="car"):
    return Detection(label, score, x, y, x + side, y + side)


def test_iou_of_known_pairs():
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], float)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    assert iou_matrix(a, b) == pytest.approx(np.array([[1, 50 / 150, 0], [0, 0, 0]]))


def test_f1_counts_hits_misses_and_extras_above_the_threshold():
    truth = {0: [box(0, 0), box(50, 50)], 1: [box(0, 0)]}
    found = {0: [box(1, 0, score=0.9), box(80, 80, score=0.8), box(51, 50, score=0.2)], 1: [box(0, 1, score=0.5)]}
    strict = detection_quality(truth, found, min_score=0.3)
    assert (strict.precision, strict.recall, strict.truths) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert strict.f1 == pytest.approx(2 / 3)
    loose = detection_quality(truth, found, min_score=0.1)
    assert (loose.precision, loose.recall) == (pytest.approx(3 / 4), 1.0)
    assert strict.map50 == loose.map50, "mAP ranks every box, whatever the threshold"


def test_two_boxes_on_one_object_are_one_hit_and_one_mistake():
    quality = detection_quality({0: [box(0, 0)]}, {0: [box(0, 0, score=0.9), box(1, 0, score=0.8)]}, min_score=0.3)
    assert (quality.precision, quality.recall, quality.map50) == (0.5, 1.0, 1.0)


def test_a_stronger_box_takes_the_object_it_overlaps_most():
    truth = {0: [box(0, 0), box(4, 0)]}
    found = {0: [box(3.9, 0, score=0.9), box(0.5, 0, score=0.8)]}
    assert detection_quality(truth, found, min_score=0.0).f1 == 1.0


def test_the_wrong_class_is_a_miss_and_a_mistake():
    quality = detection_quality({0: [box(0, 0)]}, {0: [box(0, 0, label="bus")]}, min_score=0.0)
    assert (quality.f1, quality.map50) == (0.0, 0.0)


def test_ignored_regions_forgive_extras_and_keep_hits():
    truth = {0: [box(0, 0)]}
    found = {0: [box(0, 0, score=0.9), box(100, 100, score=0.9)]}
    region = {0: [box(95, 95, side=30)]}
    assert detection_quality(truth, found, min_score=0.3).f1 == pytest.approx(2 / 3)
    assert detection_quality(truth, found, min_score=0.3, ignored=region).f1 == 1.0
    assert detection_quality(truth, found, min_score=0.3, ignored={0: [box(-5, -5, side=30)]}).recall == 1.0


def test_average_precision_by_hand():
    # Ranked hit, miss, hit of 2 objects: precision 1 at recall 0.5, then 2/3 at recall 1.
    scores, hits = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert average_precision(scores, hits, 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(scores, hits, 4) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # The envelope: miss, hit, hit gives 2/3 from the first hit on.
    assert average_precision(scores, np.array([False, True, True]), 2) == pytest.approx(2 / 3)


def test_map_is_the_mean_over_the_references_classes():
    truth = {0: [box(0, 0), box(50, 50, label="bus")]}
    found = {0: [box(0, 0, score=0.9), box(0, 30, label="dog")]}
    assert detection_quality(truth, found, min_score=0.3).map50 == pytest.approx(0.5)


def test_nothing_to_find_and_nothing_found_is_perfect_and_a_false_alarm_is_not():
    assert detection_quality({}, {}, min_score=0.3).f1 == 1.0
    assert detection_quality({}, {0: [box(0, 0)]}, min_score=0.3).f1 == 0.0
    assert detection_quality({0: [box(0, 0)]}, {}, min_score=0.3).map50 == 0.0


boxes = st.lists(
    st.builds(
        box,
        st.integers(0, 25),
        st.integers(0, 25),
        side=st.integers(5, 14),
        score=st.integers(0, 10).map(lambda n: n / 10),
        label=st.sampled_from(["car", "bus"]),
    ),
    max_size=6,
)
clips = st.dictionaries(st.integers(0, 3), boxes, max_size=4)


def slow_iou(a, b):
    across = min(a.x2, b.x2) - max(a.x1, b.x1)
    down = min(a.y2, b.y2) - max(a.y1, b.y1)
    if across <= 0 or down <= 0:
        return 0.0
    return across * down / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - across * down)


def slow_counts(truth, found, least):
    """Hits, boxes, objects with boxes below `least` thrown away first, matched one by one."""
    hits = counted = objects = 0
    for frame in truth.keys() | found.keys():
        free = list(truth.get(frame, ()))
        objects += len(free)
        for each in sorted(found.get(frame, ()), key=lambda b: -b.score):
            if each.score < least:
                continue
            counted += 1
            rivals = [(slow_iou(each, t), -i) for i, t in enumerate(free) if t.label == each.label]
            best = max(rivals, default=(0.0, 0))
            if best[0] >= 0.5:
                hits += 1
                del free[-best[1]]
    return hits, counted, objects


@given(clips, clips, st.sampled_from([0.0, 0.25, 0.55, 0.95]))
def test_agrees_with_a_slow_second_implementation(truth, found, least):
    hits, counted, objects = slow_counts(truth, found, least)
    quality = detection_quality(truth, found, min_score=least)
    assert quality.f1 == pytest.approx(2 * hits / (counted + objects) if counted + objects else 1.0)
    assert quality.recall == pytest.approx(hits / objects if objects else 1.0)
    assert 0.0 <= quality.map50 <= 1.0


@given(clips)
def test_the_reference_agrees_fully_with_itself(truth):
    apart = {f: [b for i, b in enumerate(bs) if all(slow_iou(b, o) < 0.5 for o in bs[:i])] for f, bs in truth.items()}
    quality = detection_quality(apart, apart, min_score=0.0)
    assert (quality.f1, quality.map50) == (1.0, pytest.approx(1.0))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_frontier_is_what_nothing_dominates(rows):
    def beaten(row):
        return any(all(o <= r for o, r in zip(other, row, strict=True)) and other != row for other in rows)

    assert pareto_frontier(rows).tolist() == [not beaten(row) for row in rows]
