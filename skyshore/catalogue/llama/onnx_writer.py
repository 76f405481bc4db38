"""Collects nodes and streams weights straight to the external data file, so that no model is ever whole in memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

_INLINE_BYTES: Final = 1024
"""Smaller constants stay inside the graph, where shape inference and constant folding can read them."""
_ALIGNMENT: Final = 4096
"""ONNX Runtime maps external weights that start on a page instead of copying them."""
_OPSET: Final = 21
_IR_VERSION: Final = 10
CONTRIB: Final = "com.microsoft"


class OnnxWriter:
    """Builds one ONNX file with external weights beside it. Use as a context manager; `save` writes the graph."""

    def __init__(self, model_path: Path, data_path: Path, data_name: str) -> None:
        """Write to the two paths; `data_name` is what the graph will call the data file once both are in place."""
        self._model_path = model_path
        self._data = data_path.open("wb")
        self._data_name = data_name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._names: set[str] = set()
        self._shared: set[str] = set()

    def __enter__(self) -> OnnxWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def node(
        self,
        op: str,
        inputs: list[str],
        output: str,
        domain: str = "",
        more_outputs: tuple[str, ...] = (),
        **attrs: Any,
    ) -> str:
        """Add a node and return the name of its first output."""
        outputs = [output, *more_outputs]
        self._nodes.append(helper.make_node(op, inputs, outputs, name=f"{op}:{output}", domain=domain, **attrs))
        return output

    def once(self, op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        """Add a node that others share; a second call with the same output returns the first."""
        if output in self._shared:
            return output
        self._shared.add(output)
        return self.node(op, inputs, output, **attrs)

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant once; a second call with the same name returns the first."""
        if name in self._names:
            return name
        self._names.add(name)
        tensor = TensorProto(name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
        if values.nbytes < _INLINE_BYTES:
            tensor.raw_data = values.tobytes()
        else:
            self._data.write(b"\0" * (-self._data.tell() % _ALIGNMENT))
            place = {"location": self._data_name, "offset": self._data.tell(), "length": values.nbytes}
            self._data.write(np.ascontiguousarray(values).data.cast("B"))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
        self._weights.append(tensor)
        return name

    def scalar(self, name: str, value: float, dtype: type[np.generic]) -> str:
        """Add a constant of rank 0."""
        return self.weight(name, np.array(value, dtype=dtype))

    def save(self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        """Write the graph file."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, initializer=self._weights)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, producer_name="skyshore", opset_imports=opsets, ir_version=_IR_VERSION)
        self._model_path.write_bytes(model.SerializeToString())
