"""Conversion of pixel-wise operations, with constants folded and hard swishes recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.tfjs.graph import TfNode
from skyshore.catalogue.tfjs.scope import Array, Plane, Scope, Value
from skyshore.catalogue.tfjs.specs import Axes

_ONNX_OPS: Mapping[str, str] = {
    "Add": "Add",
    "AddV2": "Add",
    "AddN": "Add",
    "BiasAdd": "Add",
    "Mul": "Mul",
    "Sub": "Sub",
}
_NUMPY: Mapping[str, Callable[[Array, Array], Array]] = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}


def activate(scope: Scope, plane: Plane, op: str, alpha: float = 0.2) -> Plane:
    """Emit a clip, leaky or plain activation."""
    build = scope.build
    if op == "Relu6":
        limits = [build.constant(np.array(bound, np.float32)) for bound in (0, 6)]
        tensor = build.add("Clip", [plane.tensor, *limits])
    elif op == "LeakyRelu":
        tensor = build.add("LeakyRelu", [plane.tensor], alpha=alpha)
    else:
        tensor = build.add(op, [plane.tensor])
    return Plane(tensor, plane.shape, plane.axes)


def activation(scope: Scope, node: TfNode) -> Plane:
    """Convert a stand-alone activation."""
    plane = scope.plane(node.inputs[0])
    result = activate(scope, plane, node.op, node.number("alpha", 0.2))
    if node.op == "Relu6" and plane.origin is not None and plane.origin[0] == "plus":
        result = replace(result, origin=("relu6_plus", *plane.origin[1:]))
    return result


def arithmetic(scope: Scope, node: TfNode) -> Value:
    """Convert a sum, difference or product of two tensors, or of a tensor and a constant."""
    if len(node.inputs) != 2:
        raise UnsupportedGraph(f"{node.name}: a sum of {len(node.inputs)} tensors is not known")
    left, right = (scope.value(i) for i in node.inputs)
    if not isinstance(left, Plane) and not isinstance(right, Plane):
        return np.asarray(_NUMPY[node.op](left, right))
    if isinstance(left, Plane) and isinstance(right, Plane):
        look_up = scope.scaled if node.op == "Mul" else scope.plane
        return _combine(scope, node, look_up(node.inputs[0]), look_up(node.inputs[1]))
    swapped = not isinstance(left, Plane)
    plane = scope.plane(node.inputs[1 if swapped else 0])
    constant = scope.constant(node.inputs[0 if swapped else 1])
    if node.op == "Sub" and swapped:
        raise UnsupportedGraph(f"{node.name}: constant minus tensor is not known")
    return _with_constant(scope, node, plane, constant)


def _with_constant(scope: Scope, node: TfNode, plane: Plane, constant: Array) -> Plane:
    op = _ONNX_OPS[node.op]
    per_channel = _per_channel(constant, plane)
    if plane.foldable is not None and per_channel is not None:
        if op == "Mul" and plane.scalable:
            plane.foldable.fold(per_channel, np.zeros_like(per_channel))
            return plane
        if op in ("Add", "Sub"):
            plane.foldable.fold(np.ones_like(per_channel), per_channel if op == "Add" else -per_channel)
            return plane
    if op == "Mul" and constant.size == 1:
        gate = _hard_sigmoid(scope, plane, float(constant.item()))
        if gate is not None:
            return gate
    physical = _physical(constant, plane.axes)
    tensor = scope.build.add(op, [plane.tensor, scope.build.constant(physical)])
    origin = None
    if constant.size == 1 and op in ("Add", "Mul"):
        origin = ("plus" if op == "Add" else "times", plane.tensor, float(constant.item()))
    return Plane(tensor, plane.shape, plane.axes, origin=origin)


def _hard_sigmoid(scope: Scope, plane: Plane, factor: float) -> Plane | None:
    """Factor * relu6(x + 3) as 6 * factor * hard_sigmoid(x): one operation, and a factor the next one takes up.

    The factor is 1/6, but half-precision storage leaves 0.16663, so 6 * factor is not quite 1.
    """
    if plane.origin is None or plane.origin[0] != "relu6_plus" or plane.origin[2] != 3.0:
        return None
    tensor = scope.build.add("HardSigmoid", [plane.origin[1]], alpha=1 / 6, beta=0.5)
    return Plane(tensor, plane.shape, plane.axes, scale=np.array([6 * factor]))


def _combine(scope: Scope, node: TfNode, left: Plane, right: Plane) -> Plane:
    if left.axes != right.axes:
        raise UnsupportedGraph(f"{node.name}: operands lie in different layouts")
    op = _ONNX_OPS[node.op]
    shape = tuple(int(max(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    nominal = (shape[0], shape[1], shape[2], shape[3])
    swish = _hard_swish(scope, left, right) if op == "Mul" else None
    if swish is not None:
        return swish
    owed = [p.scale for p in (left, right) if p.scale is not None]
    foldable = next((p.foldable for p in (left, right) if p.foldable is not None and p.shape == shape), None)
    tensor = scope.build.add(op, [left.tensor, right.tensor])
    return Plane(
        tensor,
        nominal,
        left.axes,
        foldable=foldable if op == "Add" else None,
        scale=np.multiply.reduce(owed) if owed else None,
    )


def _hard_swish(scope: Scope, left: Plane, right: Plane) -> Plane | None:
    """(factor * x) * relu6(x + 3), whichever operand comes first."""
    for scaled, clipped in ((left, right), (right, left)):
        if scaled.origin is None or clipped.origin is None:
            continue
        if scaled.origin[0] != "times" or scaled.origin[1] != clipped.origin[1]:
            continue
        gate = _hard_sigmoid(scope, clipped, scaled.origin[2])
        if gate is not None:
            tensor = scope.build.add("Mul", [scaled.origin[1], gate.tensor])
            return Plane(tensor, scaled.shape, scaled.axes, scale=gate.scale)
    return None


def _per_channel(constant: Array, plane: Plane) -> Array | None:
    """The constant as one figure per channel, or None when it varies elsewhere."""
    channels = plane.shape[1]
    if constant.size not in (1, channels):
        return None
    physical = _physical(constant, plane.axes)
    if physical.size == channels and physical.size > 1 and physical.shape[1] != channels:
        return None
    return np.asarray(np.broadcast_to(physical.reshape(-1), (channels,)), np.float32)


def _physical(constant: Array, axes: Axes) -> Array:
    """Lay a constant that broadcasts against TensorFlow axes out for NCHW."""
    full = constant.reshape((1,) * (4 - constant.ndim) + constant.shape)
    return np.asarray(full.transpose(*(axes.index(i) for i in range(4))), np.float32)


def identity(scope: Scope, node: TfNode) -> Value:
    """Pass the value on."""
    return scope.value(node.inputs[0])


def equal(scope: Scope, node: TfNode) -> Plane:
    """Convert a comparison; only a cast may consume it."""
    left, right = scope.plane(node.inputs[0]), scope.plane(node.inputs[1])
    return Plane(scope.build.add("Equal", [left.tensor, right.tensor]), left.shape, left.axes)


def cast(scope: Scope, node: TfNode) -> Plane:
    """Convert a truth value to 0.0 or 1.0."""
    plane = scope.plane(node.inputs[0])
    return replace(plane, tensor=scope.build.add("Cast", [plane.tensor], to=TensorProto.FLOAT))
