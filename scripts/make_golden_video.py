"""Runs the original TensorFlow.js graphs and keeps a sample of their outputs, to hold our ONNX conversions to.

    python scripts/make_golden_video.py ssd-mobilenet nanodet centernet yolov5s

Needs node, npm and a network (it installs `@tensorflow/tfjs` of the version below in a temporary folder) and the
models fetched (`skyshore models fetch NAME`), whose source files the cache keeps. Each run writes
`tests/data/golden_NAME.npz`: what the graph answered for one synthetic picture, thinned to stay under 100 kB. The
picture is a formula (`golden_picture`), so the test can draw it again; no photograph is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.catalogue.detectors import DETECTORS, DetectorSpec
from skyshore.catalogue.store import cache_dir
from skyshore.catalogue.tfjs.specs import NCHW

TFJS = "@tensorflow/tfjs@4.22.0"
DATA = Path(__file__).resolve().parent.parent / "tests" / "data"

RUNNER = """
const fs = require('fs'), path = require('path'), tf = require('@tensorflow/tfjs');
const [model, picture, dims, input, out, ...wanted] = process.argv.slice(2);
const document = JSON.parse(fs.readFileSync(model));
const shards = document.weightsManifest.flatMap(g => g.paths).map(p => path.join(path.dirname(model), p));
const bytes = Buffer.concat(shards.map(p => fs.readFileSync(p)));
const artifacts = {
  modelTopology: document.modelTopology, format: document.format, signature: document.signature,
  weightSpecs: document.weightsManifest.flatMap(g => g.weights),
  weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
};
(async () => {
  await tf.setBackend('cpu');
  const graph = await tf.loadGraphModel({ load: async () => artifacts });
  const raw = fs.readFileSync(picture);
  const pixels = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
  const answer = graph.execute({ [input]: tf.tensor(pixels, dims.split(',').map(Number)) }, wanted);
  const tensors = Array.isArray(answer) ? answer : [answer];
  fs.writeFileSync(path.join(out, 'shapes.json'), JSON.stringify(tensors.map(t => t.shape)));
  tensors.forEach((t, i) => {
    fs.writeFileSync(path.join(out, `${i}.bin`), Buffer.from(new Float32Array(t.dataSync()).buffer));
  });
})();
"""


EVEN, TOP = 4000, 500
"""How many evenly spaced values, and how many of the largest, are kept of each output."""


def golden_picture(height: int, width: int) -> NDArray[np.uint8]:
    """Draw the picture: ramps, stripes and discs in BGR, by integer arithmetic alone."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 5) ** 2
    person = (abs(x - 2 * width // 3) < width // 16) & (abs(y - height // 2) < height // 4)
    planes = [
        np.where(disc, 200, x * 255 // width),
        np.where(person, 30, (x // 8 + y // 8) % 2 * 60 + 90),
        np.where(disc | person, 220, y * 255 // height),
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


def even_indices(size: int) -> NDArray[np.int64]:
    """Positions at which the evenly spaced values were taken."""
    return np.linspace(0, size - 1, EVEN).astype(np.int64)


def thinned(name: str, output: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Keep a spread of an output and its largest values, so that no region and no detection goes unwatched."""
    flat = output.ravel()
    top = np.sort(np.argpartition(flat, -TOP)[-TOP:]).astype(np.int32)
    return {f"{name}.even": flat[even_indices(flat.size)], f"{name}.top_at": top, f"{name}.top": flat[top]}


def network_input(spec: DetectorSpec, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Apply by hand, outside the converter, what the graph expects of its pixels."""
    pixels = (picture.astype(np.float64) - spec.input.mean) * spec.input.scale
    if spec.input.rgb:
        pixels = pixels[..., ::-1]
    batch = pixels[None].astype(np.float32)
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if spec.input.axes == NCHW else batch)


def run_original(spec: DetectorSpec, source: Path, workshop: Path) -> dict[str, NDArray[np.float32]]:
    """Execute the original graph up to our cut points; heads are flattened as `OutputSpec` says."""
    picture = network_input(spec, golden_picture(spec.input.height, spec.input.width))
    (workshop / "picture.bin").write_bytes(picture.tobytes())
    (workshop / "run.js").write_text(RUNNER)
    wanted = [node for output in spec.outputs for node in output.nodes]
    dims = ",".join(str(d) for d in picture.shape)
    argv = ["node", "run.js", str(source / spec.graph_file), "picture.bin", dims, spec.input.node, ".", *wanted]
    subprocess.run(argv, cwd=workshop, check=True, timeout=900)
    shapes = json.loads((workshop / "shapes.json").read_text())
    answers = [np.fromfile(workshop / f"{i}.bin", np.float32).reshape(shape) for i, shape in enumerate(shapes)]
    outputs: dict[str, NDArray[np.float32]] = {}
    for output in spec.outputs:
        heads = [answers[wanted.index(node)] for node in output.nodes]
        if output.columns:
            outputs[output.name] = np.concatenate([h.reshape(1, -1, output.columns) for h in heads], axis=1)
        else:
            outputs[output.name] = heads[0].transpose(0, 3, 1, 2)
    return outputs


def main(names: list[str]) -> None:
    """Make the golden file of each named detector."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        workshop = Path(folder)
        (workshop / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", TFJS], cwd=workshop, check=True, timeout=600)
        for name in names:
            outputs = run_original(DETECTORS[name], cache_dir() / name / "source", workshop)
            path = DATA / f"golden_{name}.npz"
            kept: dict[str, Any] = {"made_with": np.array(TFJS)}
            for key, value in outputs.items():
                kept.update(thinned(key, value))
            np.savez_compressed(path, **kept)
            print(f"{path.name}: {path.stat().st_size} bytes, {[v.shape for v in outputs.values()]}")


if __name__ == "__main__":
    main(sys.argv[1:] or sorted(DETECTORS))
