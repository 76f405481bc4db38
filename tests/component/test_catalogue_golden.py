"""Every converted detector answers what the original TensorFlow.js graph answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from scripts.make_golden_video import even_indices, golden_picture
from skyshore.catalogue.detectors import DETECTORS
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import ready

DATA = Path(__file__).parent.parent / "data"

TOLERANCE = {
    # Largest error as a share of the output's largest value. fp32 in another order of operations.
    "ssd-mobilenet": 2e-5,
    "nanodet": 2e-5,
    "centernet": 2e-5,
    "yolov5s": 2e-5,
}


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_onnx_answers_what_the_tfjs_original_answered(name: str) -> None:
    try:
        folder = ready(name)
    except NotFetched as missing:
        pytest.skip(missing.message)
    golden = np.load(DATA / f"golden_{name}.npz")
    source = DETECTORS[name].input
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    frames = golden_picture(source.height, source.width).transpose(2, 0, 1)[None]
    # The second picture of the batch is another one: the answer must not depend on its neighbours.
    batch = np.concatenate([frames, np.ascontiguousarray(frames[..., ::-1])])
    for output, answer in zip(names, session.run(None, {"frames": batch}), strict=True):
        ours = answer[0].ravel()
        for at, expected in (
            (even_indices(ours.size), golden[f"{output}.even"]),
            (golden[f"{output}.top_at"], golden[f"{output}.top"]),
        ):
            scale = float(np.abs(expected).max())
            error = float(np.abs(ours[at] - expected).max())
            print(f"{name} {output}: max abs error {error:.3g}, largest value {scale:.3g}")
            assert error <= TOLERANCE[name] * scale
