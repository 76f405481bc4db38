"""Conversion of what looks at neighbouring pixels: convolutions, pooling, padding, resizing, layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.tfjs.elementwise import activate
from skyshore.catalogue.tfjs.graph import TfNode
from skyshore.catalogue.tfjs.scope import NO_PADS, Conv, Plane, Scope
from skyshore.catalogue.tfjs.specs import NHWC


def _padding(node: TfNode, size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros TensorFlow puts before and after an axis; SAME puts the odd one after."""
    mode = node.text("padding")
    if mode == "VALID":
        return 0, 0
    if mode != "SAME":
        raise UnsupportedGraph(f"{node.name}: padding {mode} is not known")
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _window(
    node: TfNode, plane: Plane, kernel: tuple[int, int], strides: tuple[int, int]
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Pads (top, left, bottom, right) and output height and width of a sliding window over `plane`."""
    top, left, bottom, right = plane.pads
    height, width = plane.shape[2] + top + bottom, plane.shape[3] + left + right
    before_h, after_h = _padding(node, height, kernel[0], strides[0])
    before_w, after_w = _padding(node, width, kernel[1], strides[1])
    size = (
        (height + before_h + after_h - kernel[0]) // strides[0] + 1,
        (width + before_w + after_w - kernel[1]) // strides[1] + 1,
    )
    return (top + before_h, left + before_w, bottom + after_h, right + after_w), size


def _strides(node: TfNode, key: str = "strides") -> tuple[int, int]:
    if node.text("data_format", "NHWC") != "NHWC":
        raise UnsupportedGraph(f"{node.name}: data format is not NHWC")
    _, vertical, horizontal, _ = node.ints(key, (1, 1, 1, 1))
    return vertical, horizontal


def convolution(scope: Scope, node: TfNode) -> Plane:
    """Convert an ordinary or depthwise convolution, with whatever was fused behind it."""
    plane = scope.value(node.inputs[0])
    if not isinstance(plane, Plane) or plane.axes != NHWC or plane.pad_value:
        raise UnsupportedGraph(f"{node.name}: input is not a channels-last tensor")
    if _strides(node, "dilations") != (1, 1):
        raise UnsupportedGraph(f"{node.name}: dilated convolutions are not known")
    depthwise = "epthwise" in node.op
    if depthwise and plane.reverse_channels:
        raise UnsupportedGraph(f"{node.name}: a depthwise convolution cannot swap its input's channels")
    kernel = scope.constant(node.inputs[1])  # [height, width, in, out] or [height, width, in, multiplier]
    if plane.reverse_channels:
        kernel = kernel[:, :, ::-1]
    if plane.scale is not None:
        kernel = kernel * plane.scale.reshape(1, 1, -1, 1)
    if depthwise:
        weights = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    else:
        weights = kernel.transpose(3, 2, 0, 1)
    strides = _strides(node)
    pads, size = _window(node, plane, (kernel.shape[0], kernel.shape[1]), strides)
    channels = weights.shape[0]
    conv = Conv(weights, np.zeros(channels, np.float32), scope.build.name("weights"), scope.build.name("bias"))
    scope.convs.append(conv)
    tensor = scope.build.add(
        "Conv",
        [plane.tensor, conv.weights_name, conv.bias_name],
        kernel_shape=list(kernel.shape[:2]),
        strides=list(strides),
        pads=list(pads),
        group=plane.shape[1] if depthwise else 1,
    )
    result = Plane(tensor, (1, channels, *size), NHWC)
    return _fused(scope, node, replace(result, foldable=conv, scalable=True))


def _fused(scope: Scope, node: TfNode, result: Plane) -> Plane:
    """Apply what grappler fused behind a convolution, then say whether more may be folded into it."""
    for index, op in enumerate(node.texts("fused_ops")):
        if op == "BiasAdd" and index == 0 and result.foldable is not None:
            offset = scope.constant(node.inputs[2])
            result.foldable.fold(np.ones_like(offset), offset)
        elif op in ("Relu", "Relu6", "LeakyRelu"):
            result = activate(scope, result, op, node.number("leakyrelu_alpha", 0.2))
        else:
            raise UnsupportedGraph(f"{node.name}: fused {op} is not known")
    return result


def batch_norm(scope: Scope, node: TfNode) -> Plane:
    """Fold an inference batch norm into the convolution before it."""
    plane = scope.plane(node.inputs[0])
    gamma, beta, mean, variance = (scope.constant(i) for i in node.inputs[1:5])
    factor = gamma / np.sqrt(variance + node.number("epsilon", 1e-3))
    if plane.foldable is None or not plane.scalable:
        raise UnsupportedGraph(f"{node.name}: batch norm does not follow a convolution")
    plane.foldable.fold(factor, beta - mean * factor)
    return plane


def transpose(scope: Scope, node: TfNode) -> Plane:
    """Permute the memory of the layout; no node is emitted."""
    plane = scope.value(node.inputs[0])
    order = [int(i) for i in scope.constant(node.inputs[1])]
    if not isinstance(plane, Plane) or len(order) != 4:
        raise UnsupportedGraph(f"{node.name}: only tensors with four axes are transposed")
    a, b, c, d = (plane.axes[i] for i in order)
    return replace(plane, axes=(a, b, c, d))


def pad(scope: Scope, node: TfNode) -> Plane:
    """Note spatial padding for the next convolution or pooling to take up."""
    plane = scope.value(node.inputs[0])
    if not isinstance(plane, Plane) or plane.pads != NO_PADS:
        raise UnsupportedGraph(f"{node.name}: padding of a padded tensor is not known")
    amounts = {plane.axes[i]: (int(pair[0]), int(pair[1])) for i, pair in enumerate(scope.constant(node.inputs[1]))}
    if amounts[0] != (0, 0) or amounts[1] != (0, 0):
        raise UnsupportedGraph(f"{node.name}: only height and width can be padded")
    fill = float(scope.constant(node.inputs[2]).item()) if node.op == "PadV2" else 0.0
    pads = (amounts[2][0], amounts[3][0], amounts[2][1], amounts[3][1])
    return replace(plane, pads=pads, pad_value=fill if any(pads) else 0.0, foldable=None, scalable=False)


LOWEST = -1e30
"""At or below this a pad value never wins a maximum, as ONNX's own padding never does."""


def max_pool(scope: Scope, node: TfNode) -> Plane:
    """Convert max-pooling, together with the padding owed to it."""
    plane = scope.value(node.inputs[0])
    if not isinstance(plane, Plane) or plane.axes != NHWC:
        raise UnsupportedGraph(f"{node.name}: input is not a channels-last tensor")
    if plane.pads != NO_PADS and plane.pad_value > LOWEST:
        raise UnsupportedGraph(f"{node.name}: max-pooling over zeros is not known")
    kernel, strides = _strides(node, "ksize"), _strides(node)
    pads, size = _window(node, plane, kernel, strides)
    tensor = scope.build.add(
        "MaxPool", [plane.tensor], kernel_shape=list(kernel), strides=list(strides), pads=list(pads)
    )
    return Plane(tensor, (1, plane.shape[1], *size), NHWC)


def resize(scope: Scope, node: TfNode) -> Plane:
    """Convert bilinear resizing, or nearest resizing by whole factors."""
    plane = scope.plane(node.inputs[0])
    if plane.axes != NHWC or node.flag("align_corners"):
        raise UnsupportedGraph(f"{node.name}: resizing with aligned corners is not known")
    height, width = (int(v) for v in scope.constant(node.inputs[1]))
    ratios = (height / plane.shape[2], width / plane.shape[3])
    if node.op == "ResizeBilinear":
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if not node.flag("half_pixel_centers"):
            mode["coordinate_transformation_mode"] = "asymmetric"
    elif all(ratio.is_integer() for ratio in ratios):
        mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        raise UnsupportedGraph(f"{node.name}: nearest resizing by {ratios} is not known")
    scales = scope.build.constant(np.array([1, 1, *ratios], np.float32))
    tensor = scope.build.add("Resize", [plane.tensor, "", scales], **mode)
    return Plane(tensor, (1, plane.shape[1], height, width), NHWC)


def concat(scope: Scope, node: TfNode) -> Plane:
    """Join tensors along channels."""
    planes = [scope.plane(i) for i in node.inputs[:-1]]
    axis = int(scope.constant(node.inputs[-1]).item()) % 4
    if len({p.axes for p in planes}) != 1 or planes[0].axes[axis] != 1:
        raise UnsupportedGraph(f"{node.name}: only channels can be concatenated")
    tensor = scope.build.add("Concat", [p.tensor for p in planes], axis=1)
    _, _, height, width = planes[0].shape
    return Plane(tensor, (1, sum(p.shape[1] for p in planes), height, width), planes[0].axes)


def mean(scope: Scope, node: TfNode) -> Plane:
    """Convert a mean over the picture, axes kept."""
    plane = scope.scaled(node.inputs[0])
    axes = {plane.axes[int(i)] for i in np.atleast_1d(scope.constant(node.inputs[1]))}
    if axes != {2, 3} or not node.flag("keep_dims"):
        raise UnsupportedGraph(f"{node.name}: only the mean over height and width is known")
    return Plane(
        scope.build.add("GlobalAveragePool", [plane.tensor]), (1, plane.shape[1], 1, 1), plane.axes, scale=plane.scale
    )
