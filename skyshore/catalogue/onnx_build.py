"""Collects ONNX nodes and constants, drops what no output needs, and writes a checked model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skyshore.catalogue.errors import UnsupportedGraph

OPSET = 17
IR_VERSION = 10


@dataclass(slots=True)
class OnnxBuilder:
    """A graph under construction; every method returns the name of the tensor it made."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    _serial: int = 0

    def name(self, stem: str) -> str:
        """Return a tensor name that is not in use."""
        self._serial += 1
        return f"{stem}_{self._serial}"

    def constant(self, value: NDArray[Any], stem: str = "c") -> str:
        """Hold a constant."""
        name = self.name(stem)
        self.constants[name] = value
        return name

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with one output."""
        name = self.name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[tuple[str, str, Sequence[int | str]]],
    ) -> onnx.ModelProto:
        """Close the graph. Each output is (its name, the tensor it shows, its shape).

        Raises:
            UnsupportedGraph: shapes or types of the graph contradict each other.
        """
        for public, tensor, _ in outputs:
            self.nodes.append(helper.make_node("Identity", [tensor], [public], name=public))
        kept = self._reachable({public for public, _, _ in outputs})
        used = {tensor for node in kept for tensor in node.input}
        graph = helper.make_graph(
            kept,
            name,
            list(inputs),
            [helper.make_tensor_value_info(public, TensorProto.FLOAT, shape) for public, _, shape in outputs],
            [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in self.constants.items() if k in used],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="skyshore"
        )
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise UnsupportedGraph(
                f"{name}: the parts of the converted graph do not fit together. A graph with fixed sizes accepts only "
                f"the input size that it was made for. ONNX reports: {str(error)[:200]}"
            ) from error
        return model

    def _reachable(self, wanted: set[str]) -> list[onnx.NodeProto]:
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]
