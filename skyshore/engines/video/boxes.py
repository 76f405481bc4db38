"""Candidate boxes as struct of arrays, and the choice of those that become detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skyshore.domain.video import Detection

MAX_CANDIDATES = 400
"""Best-scored boxes that enter suppression; its cost is quadratic and no frame holds more objects worth reporting."""
MAX_DETECTIONS = 100


_SUPPRESS: Any = cv2.dnn.NMSBoxesBatched
"""Takes arrays of (x, y, width, height), scores and labels; its stubs know lists only, which cost ten times more."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes above the score threshold, one row each, in no order."""

    corners: NDArray[np.float32]
    """[n, 4]: x1, y1, x2, y2 as shares of the picture's width and height."""
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    """Index into the model's labels."""

    def keep(self, rows: NDArray[np.bool_]) -> Candidates:
        """Keep the marked rows."""
        return Candidates(self.corners[rows], self.scores[rows], self.labels[rows])


def select(
    candidates: Candidates, labels: Sequence[str], width: int, height: int, overlap: float
) -> tuple[Detection, ...]:
    """Suppress overlapping boxes of one class and express the rest in pixels, best first.

    `overlap` is the intersection over union above which the weaker of two boxes is dropped.
    """
    if not candidates.scores.size:
        return ()
    keep = np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES]
    corners = np.clip(candidates.corners[keep], 0.0, 1.0) * np.array([width, height, width, height], np.float32)
    scores, classes = candidates.scores[keep], candidates.labels[keep]
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    chosen = _SUPPRESS(boxes, scores, classes.astype(np.int32), 0.0, overlap)
    order = np.sort(np.asarray(chosen, np.int64).ravel())[:MAX_DETECTIONS]
    solid = order[(boxes[order, 2] > 0) & (boxes[order, 3] > 0)]
    return tuple(
        Detection(labels[label], score, *box)
        for label, score, box in zip(
            classes[solid].tolist(), scores[solid].tolist(), corners[solid].tolist(), strict=True
        )
    )
