"""Turns the convolutional part of a TensorFlow.js graph model into ONNX. numpy and onnx only.

Layout changes cost nothing here. Every tensor lies channels-first in the ONNX graph, and `Plane.axes` remembers
which of those axes each TensorFlow axis is; a TensorFlow `Transpose` only permutes that memory, so a graph that swaps
layouts around every convolution (as ONNX → TensorFlow exports do) comes out with no transposition at all.

Differences from TensorFlow, and how they are converted:
- SAME padding puts the odd pixel at the end; explicit ONNX pads are computed from the known input size.
- half-pixel nearest upsampling picks floor((x + 0.5) * ratio), which for whole factors is floor(x * ratio): ONNX
  `asymmetric` + `floor`. ONNX `half_pixel` + `floor` would shift the picture by half a cell.
- batch norms and per-channel constants after a convolution are folded into its weights, also through a residual sum.
- zero padding before an unpadded convolution (or low padding before max-pooling) becomes that operation's own pads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.tfjs import elementwise, spatial
from skyshore.catalogue.tfjs.graph import TfGraph, TfNode
from skyshore.catalogue.tfjs.scope import Plane, Scope, Value
from skyshore.catalogue.tfjs.specs import NHWC, InputSpec, OutputSpec


def convert(graph: TfGraph, name: str, source: InputSpec, outputs: Sequence[OutputSpec]) -> onnx.ModelProto:
    """Convert the part of `graph` between `source` and `outputs`; the batch axis stays free.

    Raises:
        UnsupportedGraph: an operation, or a use of one, that this converter does not know.
    """
    targets = [node for output in outputs for node in output.nodes]
    order = _sorted(graph, source.node, targets)
    uses = Counter(tensor for node in order for tensor in node.inputs) + Counter(targets)
    scope = Scope(source, values=dict(graph.constants))
    scope.values[source.node] = _input(scope)
    for node in order:
        handler = _HANDLERS.get(node.op)
        if handler is None:
            raise UnsupportedGraph(f"{name}: no conversion for {node.op} ({node.name})")
        value = handler(scope, node)
        if isinstance(value, Plane) and uses[node.name] != 1:  # a fold would reach the other consumers too
            value = replace(value, foldable=None, scalable=False)
        scope.values[node.name] = value
    results = [_output(scope, output) for output in outputs]
    for conv in scope.convs:
        scope.build.constants[conv.weights_name] = conv.weights.astype(np.float32)
        scope.build.constants[conv.bias_name] = conv.bias.astype(np.float32)
    height, width = ("height", "width") if source.dynamic_size else (source.height, source.width)
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", 3, height, width])
    return scope.build.model(name, [frames], results)


def _sorted(graph: TfGraph, source: str, targets: Sequence[str]) -> list[TfNode]:
    """Sort what the targets need so that inputs come first; iterative, as graphs are deeper than stacks."""
    done: set[str] = {source, *graph.constants}
    order: list[TfNode] = []
    stack = [(target, False) for target in reversed(targets)]
    while stack:
        name, inputs_done = stack.pop()
        if name in done:
            continue
        node = graph.nodes.get(name)
        if node is None:
            raise UnsupportedGraph(f"the graph has no node {name}")
        if inputs_done:
            done.add(name)
            order.append(node)
        else:
            stack.append((name, True))
            stack.extend((i.split(":")[0], False) for i in node.inputs)
    return order


def _input(scope: Scope) -> Plane:
    source = scope.source
    tensor = scope.build.add("Cast", ["frames"], to=TensorProto.FLOAT)
    if any(source.mean):
        mean = np.asarray(source.mean, np.float32).reshape(1, 3, 1, 1)
        tensor = scope.build.add("Sub", [tensor, scope.build.constant(mean)])
    shape = (1, 3, source.height, source.width)
    return Plane(tensor, shape, source.axes, scale=np.asarray(source.scale, np.float32), reverse_channels=source.rgb)


def _output(scope: Scope, spec: OutputSpec) -> tuple[str, str, Sequence[int | str]]:
    planes = [scope.plane(node) for node in spec.nodes]
    build = scope.build
    if not spec.columns:
        (plane,) = planes
        return spec.name, plane.tensor, ["batch", *plane.shape[1:]]
    shape = build.constant(np.array([0, -1, spec.columns], np.int64))
    rows = [build.add("Reshape", [build.add("Transpose", [plane.tensor], perm=list(NHWC)), shape]) for plane in planes]
    cells = sum(p.shape[1] * p.shape[2] * p.shape[3] // spec.columns for p in planes)
    tensor = build.add("Concat", rows, axis=1) if len(rows) > 1 else rows[0]
    return spec.name, tensor, ["batch", "cells" if scope.source.dynamic_size else cells, spec.columns]


_HANDLERS: Mapping[str, Callable[[Scope, TfNode], Value]] = {
    **dict.fromkeys(
        ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), spatial.convolution
    ),
    **dict.fromkeys(("Add", "AddV2", "AddN", "BiasAdd", "Mul", "Sub"), elementwise.arithmetic),
    **dict.fromkeys(("Relu", "Relu6", "LeakyRelu", "Sigmoid"), elementwise.activation),
    **dict.fromkeys(("Pad", "PadV2"), spatial.pad),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), spatial.resize),
    "FusedBatchNorm": spatial.batch_norm,
    "Transpose": spatial.transpose,
    "MaxPool": spatial.max_pool,
    "ConcatV2": spatial.concat,
    "Mean": spatial.mean,
    "Identity": elementwise.identity,
    "Equal": elementwise.equal,
    "Cast": elementwise.cast,
}
