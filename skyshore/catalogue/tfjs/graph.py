"""Reads a TensorFlow.js graph model (topology plus weight shards) into plain values.

The format: `modelTopology.node` is a TensorFlow GraphDef as JSON; `weightsManifest` lists weights in the order in
which they lie in the concatenated shards. Two spellings exist for byte strings: base64 text and lists of bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.catalogue.errors import UnsupportedGraph

Array = NDArray[Any]

_DTYPES: Mapping[str, str] = {
    "float32": "<f4",
    "int32": "<i4",
    "uint8": "u1",
    "uint16": "<u2",
    "float16": "<f2",
    "bool": "?",
}


@dataclass(frozen=True, slots=True)
class TfNode:
    """One operation. Inputs are `name` or `name:output_index`; control inputs are dropped."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, Any]

    def text(self, key: str, default: str = "") -> str:
        """Read a byte-string attribute, whichever way it was spelt."""
        value = self.attrs.get(key, {}).get("s")
        return default if value is None else _decode(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of byte strings."""
        return tuple(_decode(v) for v in self.attrs.get(key, {}).get("list", {}).get("s", ()))

    def ints(self, key: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Read a list of integers (JSON keeps int64 as text)."""
        values = self.attrs.get(key, {}).get("list", {}).get("i")
        return tuple(int(v) for v in (default if values is None else values))

    def number(self, key: str, default: float) -> float:
        """Read a float; JSON leaves out a zero."""
        return float(self.attrs[key].get("f", 0.0)) if key in self.attrs else default

    def flag(self, key: str) -> bool:
        """Read a boolean; absent means false."""
        return bool(self.attrs.get(key, {}).get("b", False))


@dataclass(frozen=True, slots=True)
class TfGraph:
    """Nodes by name and the values of every constant, in float32 or their stored integer type."""

    nodes: Mapping[str, TfNode]
    constants: Mapping[str, Array]


def _decode(value: str | Sequence[int]) -> str:
    return (base64.b64decode(value) if isinstance(value, str) else bytes(value)).decode()


def load_graph(model_json: Path) -> TfGraph:
    """Read `model_json` and the shards it names, which lie beside it.

    Raises:
        UnsupportedGraph: not a graph model, or the shards do not hold what the manifest says.
    """
    document = json.loads(model_json.read_text())
    try:
        raw_nodes = document["modelTopology"]["node"]
        manifest = document["weightsManifest"]
    except (KeyError, TypeError) as error:
        raise UnsupportedGraph(f"{model_json.name} is no TensorFlow.js graph model: {error} is missing") from error
    nodes = {
        n["name"]: TfNode(
            name=n["name"],
            op=n["op"],
            inputs=tuple(i for i in n.get("input", ()) if not i.startswith("^")),
            attrs=n.get("attr", {}),
        )
        for n in raw_nodes
    }
    constants: dict[str, Array] = {}
    for group in manifest:
        blob = b"".join((model_json.parent / path).read_bytes() for path in group["paths"])
        constants.update(_weights(group["weights"], blob, model_json.name))
    return TfGraph(nodes, constants)


def _weights(specs: Sequence[Mapping[str, Any]], blob: bytes, where: str) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    offset = 0
    for spec in specs:
        quantization = spec.get("quantization")
        dtype = np.dtype(_DTYPES[quantization["dtype"] if quantization else spec["dtype"]])
        count = int(np.prod(spec["shape"], dtype=np.int64))
        end = offset + count * dtype.itemsize
        if end > len(blob):
            raise UnsupportedGraph(f"{where}: the shards end before weight {spec['name']}")
        stored = np.frombuffer(blob, dtype, count, offset).reshape(spec["shape"])
        weights[spec["name"]] = _dequantize(stored, quantization)
        offset = end
    if offset != len(blob):
        raise UnsupportedGraph(f"{where}: the shards hold {len(blob) - offset} bytes that no weight claims")
    return weights


def _dequantize(stored: Array, quantization: Mapping[str, Any] | None) -> Array:
    if quantization is None:
        return stored
    if quantization["dtype"] == "float16":
        return stored.astype(np.float32)
    values: Array = (stored.astype(np.float64) * quantization["scale"] + quantization["min"]).astype(np.float32)
    return values
