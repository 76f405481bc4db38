"""Reading TensorFlow.js files: both spellings of strings, stored half floats, quantised weights, cut shards."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.tfjs.graph import TfGraph, load_graph


def write_model(folder: Path, weights: list[dict[str, Any]], shards: list[bytes], nodes: list[dict[str, Any]]) -> Path:
    paths = [f"shard{i}" for i in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        (folder / path).write_bytes(shard)
    model = folder / "model.json"
    document = {"modelTopology": {"node": nodes}, "weightsManifest": [{"paths": paths, "weights": weights}]}
    model.write_text(json.dumps(document))
    return model


def load_weight(folder: Path, spec: dict[str, Any], blob: bytes, cut: int) -> TfGraph:
    return load_graph(write_model(folder, [{"name": "w", **spec}], [blob[:cut], blob[cut:]], []))


def test_a_weight_that_spans_two_shards_is_read_whole(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    graph = load_weight(tmp_path, {"shape": [2, 3], "dtype": "float32"}, values.tobytes(), cut=7)
    np.testing.assert_array_equal(graph.constants["w"], values)


def test_half_precision_storage_comes_out_as_float32(tmp_path: Path) -> None:
    stored = np.array([0.1, -2.5, 65504], "<f2")
    spec = {"shape": [3], "dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}}
    weight = load_weight(tmp_path, spec, stored.tobytes(), cut=2).constants["w"]
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, stored.astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_affine_quantisation_is_undone(tmp_path: Path, dtype: str) -> None:
    stored = np.array([0, 3, 255], dtype)
    spec = {"shape": [3], "dtype": "float32", "quantization": {"dtype": dtype, "scale": 0.5, "min": -4.0}}
    weight = load_weight(tmp_path, spec, stored.tobytes(), cut=1).constants["w"]
    np.testing.assert_allclose(weight, [-4.0, -2.5, 123.5])


@pytest.mark.parametrize("change", [-1, 1])
def test_shards_that_do_not_fit_the_manifest_are_refused(tmp_path: Path, change: int) -> None:
    blob = bytes(8 + change)
    with pytest.raises(UnsupportedGraph, match="shards"):
        load_weight(tmp_path, {"shape": [2], "dtype": "float32"}, blob, cut=3)


def test_both_spellings_of_byte_strings_and_int64_as_text(tmp_path: Path) -> None:
    as_base64 = {"padding": {"s": base64.b64encode(b"SAME").decode()}}
    as_list = {"padding": {"s": list(b"SAME")}, "strides": {"list": {"i": ["1", "2", "2", "1"]}}}
    nodes = [
        {"name": "a", "op": "Conv2D", "input": ["x", "^control"], "attr": as_base64},
        {"name": "b", "op": "Conv2D", "attr": as_list},
    ]
    graph = load_graph(write_model(tmp_path, [], [], nodes))
    assert graph.nodes["a"].text("padding") == graph.nodes["b"].text("padding") == "SAME"
    assert graph.nodes["a"].inputs == ("x",)
    assert graph.nodes["b"].ints("strides") == (1, 2, 2, 1)


def test_a_layers_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"modelTopology": {"model_config": {}}, "weightsManifest": []}))
    with pytest.raises(UnsupportedGraph, match=r"no TensorFlow\.js graph model"):
        load_graph(tmp_path / "model.json")
