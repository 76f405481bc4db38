"""From heads to boxes: each decoder gives back the boxes its heads were written to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.engines.video.boxes import MAX_DETECTIONS, Candidates, select
from skyshore.engines.video.families import CenterNet, NanoDet, Ssd, YoloV5

SURE, NEVER = 8.0, -8.0
"""Logits of a certain yes and a certain no."""


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def test_ssd_offsets_move_and_stretch_the_prior_and_class_zero_is_background() -> None:
    # Rows of ymin, xmin, ymax, xmax.
    anchors = np.array([[0.1, 0.2, 0.3, 0.6], [0.5, 0.5, 0.7, 0.9]], np.float32)
    scores = np.full((2, 91), NEVER, np.float32)
    scores[0, 0] = scores[1, 17] = SURE
    # Centre down by half a height and right by a quarter of a width; twice as high, as wide as before.
    boxes = np.array([[0, 0, 0, 0], [5, 2.5, 5 * np.log(2), 0]], np.float32)
    found = Ssd(anchors).candidates({"boxes": boxes, "scores": scores}, 300, 300, 0.5)
    assert found.labels.tolist() == [17]
    assert found.scores[0] == pytest.approx(sigmoid(SURE))
    assert found.corners[0] == pytest.approx([0.6, 0.5, 1.0, 0.9], abs=1e-6)


@given(st.integers(0, 51), st.integers(0, 51), st.lists(st.integers(0, 10), min_size=4, max_size=4))
def test_nanodet_sides_lie_at_the_mean_of_their_distribution(x: int, y: int, sides: list[int]) -> None:
    rows = np.full((52 * 52 + 26 * 26 + 13 * 13, 124), NEVER, np.float32)
    cell = y * 52 + x
    rows[cell, 3] = SURE
    for side, distance in enumerate(sides):
        rows[cell, 80 + 11 * side + distance] = 40.0
    found = NanoDet().candidates({"rows": rows}, 416, 416, 0.5)
    left, top, right, bottom = sides
    expected = np.array([x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom]) * 8 / 416
    assert found.labels.tolist() == [3]
    assert found.corners[0] == pytest.approx(expected, abs=1e-5)


def test_nanodet_cells_of_the_coarsest_scale_come_last() -> None:
    rows = np.full((52 * 52 + 26 * 26 + 13 * 13, 124), NEVER, np.float32)
    rows[-1, 0] = SURE
    rows[-1, 80:] = 0.0  # flat distributions: five strides to every side
    found = NanoDet().candidates({"rows": rows}, 416, 416, 0.5)
    centre = 12.5 * 32
    assert found.corners[0] * 416 == pytest.approx([centre - 160, centre - 160, centre + 160, centre + 160], abs=1e-2)


def test_centernet_peaks_stand_on_cell_corners_with_distances_in_pixels() -> None:
    peaks, sizes = np.zeros((80, 128, 128), np.float32), np.zeros((4, 128, 128), np.float32)
    peaks[7, 20, 30], peaks[2, 5, 5] = 0.8, 0.2
    sizes[:, 20, 30] = [10, 20, 30, 40]
    found = CenterNet().candidates({"peaks": peaks, "sizes": sizes}, 512, 512, 0.5)
    assert (found.labels.tolist(), found.scores.tolist()) == ([7], [pytest.approx(0.8)])
    assert found.corners[0] * 512 == pytest.approx([120 - 10, 80 - 20, 120 + 30, 80 + 40])


@given(st.integers(0, 2), st.integers(0, 2), st.sampled_from([(480, 640), (640, 640), (64, 96)]), st.data())
def test_yolo_boxes_of_every_scale_anchor_and_input_size(
    scale: int, anchor: int, size: tuple[int, int], data: st.DataObject
) -> None:
    height, width = size
    grids = [(height // s, width // s) for s in (8, 16, 32)]
    y, x = (data.draw(st.integers(0, side - 1)) for side in grids[scale])
    rows = np.full((sum(h * w for h, w in grids) * 3, 85), NEVER, np.float32)
    before = sum(h * w for h, w in grids[:scale])
    row = (before + y * grids[scale][1] + x) * 3 + anchor
    rows[row, :4] = 0.0  # the middle of the cell, and exactly the anchor's size
    rows[row, 4] = rows[row, 5 + 11] = SURE
    found = YoloV5().candidates({"rows": rows}, height, width, 0.5)
    stride = (8, 16, 32)[scale]
    sizes = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (156, 198), (373, 326)]]
    w, h = sizes[scale][anchor]
    centre_x, centre_y = (x + 0.5) * stride, (y + 0.5) * stride
    expected = [centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2]
    assert found.labels.tolist() == [11]
    assert found.scores[0] == pytest.approx(sigmoid(SURE) ** 2)
    assert found.corners[0] * [width, height, width, height] == pytest.approx(expected, abs=1e-2)


def test_yolo_counts_objectness_times_class() -> None:
    rows = np.full((84, 85), NEVER, np.float32)
    rows[0, 4] = rows[0, 5] = 1.0
    decoder = YoloV5()
    assert decoder.candidates({"rows": rows}, 32, 64, 0.5).scores[:1] == pytest.approx([sigmoid(1.0) ** 2])
    assert not decoder.candidates({"rows": rows}, 32, 64, 0.55).scores.size


def boxes(rows: list[tuple[float, float, float, float, float, int]]) -> Candidates:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Candidates(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def test_suppression_keeps_the_best_of_one_class_and_never_crosses_classes() -> None:
    found = select(
        boxes([(0.1, 0.1, 0.5, 0.5, 0.6, 0), (0.11, 0.1, 0.5, 0.5, 0.9, 0), (0.1, 0.1, 0.5, 0.5, 0.7, 1)]),
        ["person", "car"],
        100,
        200,
        overlap=0.6,
    )
    assert [(d.label, round(d.score, 2)) for d in found] == [("person", 0.9), ("car", 0.7)]
    assert (found[0].x1, found[0].y1, found[0].x2, found[0].y2) == pytest.approx((11, 20, 50, 100))


def test_boxes_are_cut_at_the_picture_and_empty_ones_dropped() -> None:
    found = select(boxes([(-0.5, -0.1, 0.2, 1.4, 0.9, 0), (1.1, 0.2, 1.3, 0.4, 0.9, 0)]), ["a"], 100, 100, 0.5)
    assert [(d.x1, d.y1, d.x2, d.y2) for d in found] == [pytest.approx((0, 0, 20, 100))]


def test_nothing_found_is_an_empty_answer() -> None:
    assert select(boxes([]), ["a"], 10, 10, 0.5) == ()


@given(st.integers(0, 600), st.integers(0, 2**32 - 1))
def test_what_is_kept_never_overlaps_its_own_class_and_comes_best_first(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * 0.8
    corners = np.concatenate([corner, corner + rng.random((count, 2)) * 0.2 + 0.01], axis=1).astype(np.float32)
    candidates = Candidates(corners, rng.random(count).astype(np.float32), rng.integers(0, 3, count))
    found = select(candidates, ["a", "b", "c"], 1000, 1000, overlap=0.5)
    assert len(found) <= MAX_DETECTIONS
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for i, one in enumerate(found):
        for other in found[:i]:
            if one.label == other.label:
                width = min(one.x2, other.x2) - max(one.x1, other.x1)
                height = min(one.y2, other.y2) - max(one.y1, other.y1)
                both = max(width, 0) * max(height, 0)
                areas = [(d.x2 - d.x1) * (d.y2 - d.y1) for d in (one, other)]
                assert both / (sum(areas) - both) <= 0.5 + 1e-4
