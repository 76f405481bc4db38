"""Convert one detector of the catalogue and write what the video engine needs of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from skyshore.catalogue.detectors import DetectorSpec
from skyshore.catalogue.tfjs.convert import convert
from skyshore.catalogue.tfjs.graph import load_graph

MODEL_FILE = "model.onnx"
ANCHORS_FILE = "anchors.npy"
"""Prior boxes of the single-shot detector: rows of ymin, xmin, ymax, xmax in 0..1."""


def build_detector(spec: DetectorSpec, folder: Path) -> tuple[dict[str, object], list[str]]:
    """Convert the detector whose sources lie in `folder/source`; writes `model.onnx` and what its decoder needs.

    Returns:
        What the engine must know of it, and the names of the files written.

    Raises:
        UnsupportedGraph: the source is not the graph that `spec` describes.
    """
    graph = load_graph(folder / "source" / spec.graph_file)
    onnx.save(convert(graph, spec.entry.name, spec.input, spec.outputs), folder / MODEL_FILE)
    about: dict[str, object] = {
        "family": spec.family,
        "height": spec.input.height,
        "width": spec.input.width,
        "dynamic_size": spec.input.dynamic_size,
        "corner_sampling": spec.corner_sampling,
        "preprocessing": "resize to height and width; the graph takes uint8 BGR planes [batch, 3, height, width]",
        "labels": list(spec.labels),
    }
    if not spec.anchors:
        return about, [MODEL_FILE]
    np.save(folder / ANCHORS_FILE, np.reshape(graph.constants[spec.anchors], (-1, 4)))
    return about, [MODEL_FILE, ANCHORS_FILE]
