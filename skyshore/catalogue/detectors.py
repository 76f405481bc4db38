"""How each detector's graph is cut, fed and labelled; decoding of the cut heads lives in `skyshore.engines.video`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from skyshore.catalogue.coco import COCO_80, COCO_91
from skyshore.catalogue.tfjs.convert import convert
from skyshore.catalogue.tfjs.graph import load_graph
from skyshore.catalogue.tfjs.scope import NCHW, InputSpec, OutputSpec

MODEL_FILE = "model.onnx"
ANCHORS_FILE = "anchors.npy"
"""Prior boxes of the single-shot detector: rows of ymin, xmin, ymax, xmax in 0..1."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """One detector: where its graph begins and ends."""

    family: str
    """Which decoder reads its outputs: `ssd`, `nanodet`, `centernet` or `yolov5`."""
    graph_file: str
    source: InputSpec
    outputs: tuple[OutputSpec, ...]
    labels: tuple[str, ...]
    corner_sampling: bool = False
    """Trained behind TensorFlow's old resize, which samples at pixel corners, not centres: its boxes lie that much up
    and to the left of what a centred resize shows the network."""
    anchors: str = ""
    """Name of the weight that holds the decoder's prior boxes; empty for detectors without any."""


_IMAGENET_MEAN_BGR = (103.53, 116.28, 123.675)
_IMAGENET_SCALE_BGR = (1 / 57.375, 1 / 57.12, 1 / 58.395)

DETECTORS: Mapping[str, DetectorSpec] = {
    "ssd-mobilenet": DetectorSpec(
        family="ssd",
        graph_file="model.json",
        source=InputSpec("Preprocessor/sub", 300, 300, mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
        outputs=(
            OutputSpec("boxes", tuple(f"BoxPredictor_{i}/BoxEncodingPredictor/BiasAdd" for i in range(6)), 4),
            OutputSpec("scores", tuple(f"BoxPredictor_{i}/ClassPredictor/BiasAdd" for i in range(6)), 91),
        ),
        labels=COCO_91,
        corner_sampling=True,
        anchors="Postprocessor/ExpandDims",
    ),
    "nanodet": DetectorSpec(
        family="nanodet",
        graph_file="nanodet.json",
        source=InputSpec("input_1", 416, 416, axes=NCHW, rgb=False, mean=_IMAGENET_MEAN_BGR, scale=_IMAGENET_SCALE_BGR),
        outputs=(OutputSpec("rows", tuple(f"PartitionedCall/Add_{i}" for i in (29, 33, 37)), 124),),
        labels=COCO_80,
    ),
    "centernet": DetectorSpec(
        family="centernet",
        graph_file="centernet.json",
        source=InputSpec("tower_0/images", 512, 512),
        outputs=(OutputSpec("peaks", ("tower_0/mul_1",)), OutputSpec("sizes", ("tower_0/wh",))),
        labels=COCO_80,
    ),
    "yolov5s": DetectorSpec(
        family="yolov5",
        graph_file="model.json",
        source=InputSpec("input_1", 640, 640, scale=(1 / 255,) * 3, dynamic_size=True),
        outputs=(
            OutputSpec(
                "rows",
                tuple(
                    f"StatefulPartitionedCall/model/tf_detect/{conv}/BiasAdd"
                    for conv in ("tf_conv2d/conv2d_57", "tf_conv2d_1/conv2d_58", "tf_conv2d_2/conv2d_59")
                ),
                85,
            ),
        ),
        labels=COCO_80,
    ),
}


def build_detector(name: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    """Convert the detector whose sources lie in `folder/source`; writes `model.onnx` and what its decoder needs.

    Returns:
        What the engine must know of it, and the names of the files written.

    Raises:
        UnsupportedGraph: the source is not the graph this table was written for.
    """
    spec = DETECTORS[name]
    graph = load_graph(folder / "source" / spec.graph_file)
    onnx.save(convert(graph, name, spec.source, spec.outputs), folder / MODEL_FILE)
    about: dict[str, object] = {
        "family": spec.family,
        "height": spec.source.height,
        "width": spec.source.width,
        "dynamic_size": spec.source.dynamic_size,
        "corner_sampling": spec.corner_sampling,
        "preprocessing": "resize to height and width; the graph takes uint8 BGR planes [batch, 3, height, width]",
        "labels": list(spec.labels),
    }
    if not spec.anchors:
        return about, [MODEL_FILE]
    np.save(folder / ANCHORS_FILE, np.reshape(graph.constants[spec.anchors], (-1, 4)))
    return about, [MODEL_FILE, ANCHORS_FILE]
