"""One class per family of detectors: from raw outputs to candidate boxes.

A head holds logits; thresholds are applied to them before anything else is computed, so the work that follows is
proportional to what was found. All outputs are of one frame (the batch axis is gone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skyshore.engines.video.boxes import Candidates

Array = NDArray[Any]


class Family(Protocol):
    """Decodes the outputs of one family of networks."""

    overlap: float
    """IoU above which boxes of one class are one object."""

    def candidates(self, outputs: Mapping[str, Array], height: int, width: int, min_score: float) -> Candidates:
        """Find the boxes that score at least `min_score`; `height` and `width` are those of the network's input."""
        ...


def _logit(score: float) -> np.float32:
    bounded = min(max(score, 1e-6), 1 - 1e-6)
    return np.float32(np.log(bounded / (1 - bounded)))


def _sigmoid(logits: Array) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _grid(height: int, width: int, strides: Sequence[int]) -> Array:
    """Rows of (x, y, stride), cells counted left to right, top to bottom, fine scale first. Whole-number cells."""
    scales = []
    for stride in strides:
        y, x = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        scales.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], axis=1))
    return np.concatenate(scales).astype(np.float32)


def _where(marks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """`np.nonzero` for the few marks among very many: a flat search is many times quicker than one in axes."""
    return tuple(np.unravel_index(np.flatnonzero(marks), marks.shape))


class Ssd:
    """Single-shot detector: offsets to prior boxes, one sigmoid per class (Liu et al. 2016; TF detection API coder)."""

    overlap = 0.6
    _CENTRE_SCALE, _SIZE_SCALE = 10.0, 5.0

    def __init__(self, anchors: Array) -> None:
        """Take the prior boxes: rows of ymin, xmin, ymax, xmax in 0..1."""
        self._sizes = anchors[:, 2:] - anchors[:, :2]
        self._centres = (anchors[:, :2] + anchors[:, 2:]) / 2

    def candidates(self, outputs: Mapping[str, Array], height: int, width: int, min_score: float) -> Candidates:
        """Decode `boxes` [anchors, 4] and `scores` [anchors, 91], whose first class is the background."""
        del height, width  # the priors are relative already
        logits = outputs["scores"]
        rows, others = _where(logits[:, 1:] >= _logit(min_score))
        labels = others + 1
        offsets, sizes = outputs["boxes"][rows], self._sizes[rows]
        centres = offsets[:, :2] / self._CENTRE_SCALE * sizes + self._centres[rows]
        halves = np.exp(offsets[:, 2:] / self._SIZE_SCALE) * sizes / 2
        corners = np.concatenate([centres - halves, centres + halves], axis=1)[:, [1, 0, 3, 2]]
        return Candidates(corners.astype(np.float32), _sigmoid(logits[rows, labels]), labels)


class NanoDet:
    """Anchor-free; each side's distance is the mean of a distribution over 0..10 strides (generalised focal loss)."""

    overlap = 0.6
    _STRIDES, _CLASSES, _BINS = (8, 16, 32), 80, 11

    def __init__(self) -> None:
        self._grids: dict[tuple[int, int], Array] = {}

    def candidates(self, outputs: Mapping[str, Array], height: int, width: int, min_score: float) -> Candidates:
        """Decode `rows` [cells, 80 class logits + 4 × 11 bins: left, top, right, bottom]."""
        rows = outputs["rows"]
        if (height, width) not in self._grids:
            self._grids[height, width] = _grid(height, width, self._STRIDES)
        grid = self._grids[height, width]
        cells, labels = _where(rows[:, : self._CLASSES] >= _logit(min_score))
        bins = rows[cells, self._CLASSES :].reshape(-1, 4, self._BINS)
        weights = np.exp(bins - bins.max(axis=2, keepdims=True))
        distances = weights @ np.arange(self._BINS, dtype=np.float32) / weights.sum(axis=2)
        stride = grid[cells, 2:]
        centres = (grid[cells, :2] + 0.5) * stride
        corners = np.concatenate([centres - distances[:, :2] * stride, centres + distances[:, 2:] * stride], axis=1)
        relative = corners / np.array([width, height, width, height], np.float32)
        return Candidates(relative.astype(np.float32), _sigmoid(rows[cells, labels]), labels)


class CenterNet:
    """Objects as peaks of a heat map, with the distances to their four sides (Zhou et al. 2019)."""

    overlap = 0.6
    _STRIDE = 4

    def candidates(self, outputs: Mapping[str, Array], height: int, width: int, min_score: float) -> Candidates:
        """Decode `peaks` [80, h, w], zero off the peaks, and `sizes` [4, h, w]: left, top, right, bottom in pixels."""
        peaks, sizes = outputs["peaks"], outputs["sizes"]
        labels, y, x = _where(peaks >= np.float32(max(min_score, 1e-6)))
        centres = np.stack([x, y], axis=1) * self._STRIDE
        distances = sizes[:, y, x].T
        corners = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
        relative = corners / np.array([width, height, width, height])
        return Candidates(relative.astype(np.float32), peaks[labels, y, x], labels)


class YoloV5:
    """Three anchors per cell and scale; score is objectness times class (YOLOv5 release 6 heads)."""

    overlap = 0.5
    _STRIDES = (8, 16, 32)
    _ANCHORS = np.array(
        [
            [[10, 13], [16, 30], [33, 23]],
            [[30, 61], [62, 45], [59, 119]],
            [[116, 90], [156, 198], [373, 326]],
        ],
        np.float32,
    )

    def __init__(self) -> None:
        self._grids: dict[tuple[int, int], tuple[Array, Array]] = {}

    def candidates(self, outputs: Mapping[str, Array], height: int, width: int, min_score: float) -> Candidates:
        """Decode `rows` [cells × 3, 85]: x, y, w, h, objectness and 80 class logits."""
        rows = outputs["rows"]
        if (height, width) not in self._grids:
            self._grids[height, width] = self._layout(height, width)
        grid, anchors = self._grids[height, width]
        found = np.flatnonzero(rows[:, 4] >= _logit(min_score))  # the product cannot reach what one factor misses
        activated = _sigmoid(rows[found])
        scores = activated[:, 5:] * activated[:, 4:5]
        picked, labels = np.nonzero(scores >= np.float32(min_score))
        cells, box = found[picked], activated[picked, :4] * 2
        centres = (box[:, :2] - 0.5 + grid[cells, :2]) * grid[cells, 2:]
        halves = box[:, 2:] ** 2 * anchors[cells] / 2
        relative = np.concatenate([centres - halves, centres + halves], axis=1) / np.array([width, height] * 2)
        return Candidates(relative.astype(np.float32), scores[picked, labels], labels)

    def _layout(self, height: int, width: int) -> tuple[Array, Array]:
        grids = [_grid(height, width, (stride,)) for stride in self._STRIDES]
        anchors = [np.tile(a, (len(g), 1)) for g, a in zip(grids, self._ANCHORS, strict=True)]
        return np.repeat(np.concatenate(grids), 3, axis=0), np.concatenate(anchors)
