"""One detector, ready to run: how pictures become its input, and its outputs detections."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import NotFound
from skyshore.domain.video import Detection, SegmentInfo
from skyshore.engines.video.boxes import select
from skyshore.engines.video.families import CenterNet, Family, NanoDet, Ssd, YoloV5

Array = NDArray[Any]
Planes = NDArray[np.uint8]
"""[3, height, width]: blue, green and red plane of one picture at the network's input size."""

_SIZE_STEP = 32
"""Networks of free size take multiples of this."""

_FAMILIES: Mapping[str, Callable[[Path], Family]] = {
    "ssd": lambda folder: Ssd(np.load(folder / "anchors.npy")),
    "nanodet": lambda _: NanoDet(),
    "centernet": lambda _: CenterNet(),
    "yolov5": lambda _: YoloV5(),
}


class Detector:
    """Pre- and post-processing of one model; holds no session and no state between frames."""

    def __init__(self, folder: Path) -> None:
        """Read the folder that the catalogue made: `manifest.json`, `model.onnx` and what the family needs.

        Raises:
            NotFound: it holds no detector.
        """
        try:
            about = json.loads((folder / "manifest.json").read_text())["about"]
            self.family: Family = _FAMILIES[about["family"]](folder)
        except (FileNotFoundError, KeyError) as error:
            raise NotFound(
                f"{folder} holds no detector; run `skyshore models fetch {folder.name}`", param="model"
            ) from error
        self.model_file = folder / "model.onnx"
        self.labels: tuple[str, ...] = tuple(about["labels"])
        self._height, self._width = int(about["height"]), int(about["width"])
        self._dynamic_size = bool(about["dynamic_size"])
        self._corner_sampling = bool(about["corner_sampling"])

    def input_size(self, source_width: int, source_height: int) -> tuple[int, int]:
        """Height and width to which pictures of that shape are scaled.

        Networks of fixed size get the picture squeezed, as they were trained; those of free size keep its shape as
        nearly as multiples of 32 allow.
        """
        if not self._dynamic_size:
            return self._height, self._width
        ratio = max(self._height, self._width) / max(source_height, source_width, 1)
        height, width = (
            max(round(side * ratio / _SIZE_STEP), 1) * _SIZE_STEP for side in (source_height, source_width)
        )
        return height, width

    def prepare(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> Planes:
        """Scale a BGR picture to `size` (height, width) and part it into planes."""
        height, width = size
        shrinking = picture.shape[0] >= 2 * height and picture.shape[1] >= 2 * width
        scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        planes = np.empty((3, height, width), np.uint8)
        cv2.split(scaled, [planes[0], planes[1], planes[2]])
        return planes

    def detections(
        self, outputs: Mapping[str, Array], size: tuple[int, int], info: SegmentInfo
    ) -> tuple[Detection, ...]:
        """Decode one frame's outputs; boxes come in the source's pixels, best first."""
        candidates = self.family.candidates(outputs, *size, info.min_score)
        if info.classes:
            candidates = candidates.keep(np.isin(candidates.labels, self._indices(info.classes)))
        if self._corner_sampling:
            candidates.corners[:] += self._half_pixel(size, info)
        return select(candidates, self.labels, info.source_width, info.source_height, self.family.overlap)

    @staticmethod
    def _half_pixel(size: tuple[int, int], info: SegmentInfo) -> NDArray[np.float32]:
        """How far, as shares of the picture, a centred resize lies from one that samples at pixel corners."""
        y, x = (
            0.5 / inside - 0.5 / outside
            for inside, outside in zip(size, (info.source_height, info.source_width), strict=True)
        )
        return np.array([x, y, x, y], np.float32)

    def _indices(self, names: Sequence[str]) -> list[int]:
        return [index for index, label in enumerate(self.labels) if label in names]
