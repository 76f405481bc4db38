"""Quality of detections against a reference: F1 at a score threshold, and mean average precision, both at IoU 0.5.

Boxes are matched per frame and class, highest score first, each with the free reference box of largest overlap, as in
PASCAL VOC and COCO. A box never takes the match of a box with a higher score, so one matching serves every threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.video import Detection

Boxes = NDArray[np.float64]
"""[n, 4]: x1, y1, x2, y2."""
FrameBoxes = Mapping[int, Sequence[Detection]]
"""Frame index → boxes. A frame that is absent has none."""

IOU = 0.5
IGNORED_SHARE = 0.5
"""A box with this share of its area in an ignored region is not counted."""


@dataclass(frozen=True, slots=True)
class DetectionQuality:
    """Figures in 0..1."""

    f1: float
    precision: float
    recall: float
    map50: float
    """Mean over the classes of the reference of the area under the precision envelope (PASCAL VOC since 2010)."""
    truths: int
    """Reference boxes."""


@dataclass(frozen=True, slots=True)
class _Matches:
    """All counted boxes of one class, unordered."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    truths: int


def detection_quality(
    truth: FrameBoxes, found: FrameBoxes, *, min_score: float, ignored: FrameBoxes | None = None, overlap: float = IOU
) -> DetectionQuality:
    """Compare `found` with `truth` over all frames of either.

    F1, precision and recall count boxes with a score of at least `min_score`, of all classes; mAP ranks every box.
    Classes that the reference does not have count as errors in F1 and are not part of mAP. `ignored` holds regions
    without annotations. If there is nothing to find and nothing was found, all figures are 1.
    """
    labels = {box.label for boxes in (*truth.values(), *found.values()) for box in boxes}
    classes = {label: _match(label, truth, found, ignored or {}, overlap) for label in labels}
    scored = [matches.hits[matches.scores >= min_score] for matches in classes.values()]
    hits = sum(int(each.sum()) for each in scored)
    counted = sum(each.size for each in scored)
    truths = sum(matches.truths for matches in classes.values())
    precisions = [average_precision(m.scores, m.hits, m.truths) for m in classes.values() if m.truths]
    return DetectionQuality(
        f1=2 * hits / (counted + truths) if counted + truths else 1.0,
        precision=hits / counted if counted else 1.0,
        recall=hits / truths if truths else 1.0,
        map50=float(np.mean(precisions)) if precisions else 1.0,
        truths=truths,
    )


def average_precision(scores: NDArray[np.float64], hits: NDArray[np.bool_], truths: int) -> float:
    """Area under precision over recall, precision made monotone from the right. `truths` is positive.

    Boxes with equal scores are added together, so that their order has no effect.
    """
    if not scores.size:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    found = np.cumsum(hits[order])[ends]
    precision = np.maximum.accumulate((found / (ends + 1))[::-1])[::-1]
    steps = np.diff(found / truths, prepend=0.0)
    return float(np.sum(steps * precision))


def iou_matrix(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every pair; [n, m]."""
    both = _intersections(a, b)
    union = _areas(a)[:, None] + _areas(b)[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _match(label: str, truth: FrameBoxes, found: FrameBoxes, ignored: FrameBoxes, overlap: float) -> _Matches:
    scores: list[NDArray[np.float64]] = []
    hits: list[NDArray[np.bool_]] = []
    truths = 0
    for frame in truth.keys() | found.keys():
        wanted = [box for box in truth.get(frame, ()) if box.label == label]
        boxes = sorted((box for box in found.get(frame, ()) if box.label == label), key=lambda box: -box.score)
        truths += len(wanted)
        if not boxes:
            continue
        hit = _assign(iou_matrix(_corners(boxes), _corners(wanted)), overlap)
        counted = hit | ~_inside(_corners(boxes), _corners(ignored.get(frame, ())))
        scores.append(np.array([box.score for box in boxes])[counted])
        hits.append(hit[counted])
    if not scores:
        return _Matches(np.empty(0), np.empty(0, np.bool_), truths)
    return _Matches(np.concatenate(scores), np.concatenate(hits), truths)


def _assign(overlaps: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Each row in turn takes the free column of largest overlap. Returns which rows have one."""
    hit = np.zeros(overlaps.shape[0], np.bool_)
    if not overlaps.shape[1]:
        return hit
    free = overlaps.copy()
    for row in np.flatnonzero(overlaps.max(axis=1) >= least):
        column = int(free[row].argmax())
        if free[row, column] >= least:
            hit[row] = True
            free[:, column] = -1.0
    return hit


def _inside(boxes: Boxes, regions: Boxes) -> NDArray[np.bool_]:
    if not regions.size:
        return np.zeros(len(boxes), np.bool_)
    covered: NDArray[Any] = _intersections(boxes, regions).max(axis=1)
    return np.asarray(covered >= IGNORED_SHARE * np.maximum(_areas(boxes), 1e-9), np.bool_)


def _intersections(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    upper = np.maximum(a[:, None, :2], b[None, :, :2])
    lower = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(lower - upper, 0.0, None)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float64)


def _areas(boxes: Boxes) -> NDArray[np.float64]:
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float64)


def _corners(boxes: Sequence[Detection]) -> Boxes:
    return np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float64).reshape(-1, 4)
