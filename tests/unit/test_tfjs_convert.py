"""The ONNX that comes out computes what TensorFlow's definitions say, written out here the slow way."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.tfjs.convert import convert
from skyshore.catalogue.tfjs.graph import TfGraph, TfNode
from skyshore.catalogue.tfjs.specs import NCHW, NHWC, InputSpec, OutputSpec

RNG = np.random.default_rng(3)
PASS = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)
"""A 1 × 1 convolution that changes nothing, to get from uint8 pixels to a float tensor."""


class Net:
    """Builds a small graph by name; the input is `x`, NHWC unless told otherwise."""

    def __init__(self, height: int = 6, width: int = 6) -> None:
        self.nodes: dict[str, TfNode] = {"x": TfNode("x", "Placeholder", (), {})}
        self.constants: dict[str, np.ndarray] = {}
        self.frame = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def const(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def node(self, name: str, op: str, *inputs: str, **attrs: Any) -> str:
        self.nodes[name] = TfNode(name, op, inputs, {key: encode(value) for key, value in attrs.items()})
        return name

    def start(self) -> str:
        return self.conv("start", "x", PASS)

    def conv(self, name: str, source: str, kernel: np.ndarray, op: str = "Conv2D", **attrs: Any) -> str:
        attrs = {"padding": "SAME", "strides": [1, 1, 1, 1], **attrs}
        return self.node(name, op, source, self.const(f"{name}/w", kernel), **attrs)

    def model(self, output: str, **source: Any) -> onnx.ModelProto:
        spec = InputSpec("x", self.frame.shape[0], self.frame.shape[1], **{"rgb": False, **source})
        return convert(TfGraph(self.nodes, self.constants), "net", spec, [OutputSpec("y", (output,))])

    def run(self, output: str, **source: Any) -> np.ndarray:
        """Answer of the converted net as [H, W, C]."""
        session = onnxruntime.InferenceSession(
            self.model(output, **source).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        planes = np.ascontiguousarray(self.frame.transpose(2, 0, 1))
        (answer,) = session.run(None, {"frames": np.stack([planes, planes[:, ::-1]])})
        return answer[0].transpose(1, 2, 0)


def encode(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"s": list(value.encode())}
        case bool():
            return {"b": value}
        case float():
            return {"f": value}
        case [str(), *_]:
            return {"list": {"s": [list(v.encode()) for v in value]}}
        case _:
            return {"list": {"i": [str(v) for v in value]}}


def convolved(image: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """TensorFlow's SAME convolution: output ceil(size / stride), the odd padding pixel below and to the right."""
    height, width = (-(-side // stride) for side in image.shape[:2])
    pads = [
        max((out - 1) * stride + k - side, 0)
        for out, k, side in zip((height, width), kernel.shape[:2], image.shape[:2], strict=True)
    ]
    padded = np.pad(image.astype(np.float64), [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
    out = np.zeros((height, width, kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]))
    for y in range(height):
        for x in range(width):
            patch = padded[y * stride :, x * stride :][: kernel.shape[0], : kernel.shape[1]]
            if depthwise:
                out[y, x] = np.einsum("abc,abcm->cm", patch, kernel).ravel()
            else:
                out[y, x] = np.einsum("abc,abco->o", patch, kernel)
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 9),
    st.integers(3, 9),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_same_padding_puts_the_odd_pixel_last(height: int, width: int, k: int, stride: int, depthwise: bool) -> None:
    net = Net(height, width)
    kernel = RNG.normal(size=(k, k, 3, 2)).astype(np.float32)
    op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
    out = net.conv("c", "x", kernel, op, strides=[1, stride, stride, 1])
    np.testing.assert_allclose(net.run(out), convolved(net.frame, kernel, stride, depthwise), rtol=1e-4, atol=1e-2)


def test_mean_scale_and_channel_order_reach_the_network_as_declared() -> None:
    net = Net()
    kernel = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
    mean, scale = (10.0, 20.0, 30.0), (0.5, 0.25, 0.125)
    normal = ((net.frame - np.array(mean)) * np.array(scale))[..., ::-1]
    answer = net.run(net.conv("c", "x", kernel), rgb=True, mean=mean, scale=scale)
    np.testing.assert_allclose(answer, convolved(normal, kernel, 1, False), rtol=1e-4, atol=1e-3)


def test_half_pixel_nearest_doubling_repeats_each_pixel_twice() -> None:
    net = Net(4, 5)
    net.start()
    out = net.node("up", "ResizeNearestNeighbor", "start", net.const("size", [8, 10]), half_pixel_centers=True)
    np.testing.assert_array_equal(net.run(out), np.repeat(np.repeat(net.frame, 2, 0), 2, 1))


@pytest.mark.parametrize("half_pixel", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (2, 3)])
def test_bilinear_resizing_samples_where_tensorflow_does(half_pixel: bool, size: tuple[int, int]) -> None:
    net = Net(4, 6)
    net.start()
    out = net.node("r", "ResizeBilinear", "start", net.const("size", size), half_pixel_centers=half_pixel)
    expected = net.frame.astype(np.float64)
    for axis, target in enumerate(size):
        length = expected.shape[axis]
        at = (np.arange(target) + 0.5 * half_pixel) * length / target - 0.5 * half_pixel
        at = np.clip(at, 0, length - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        expected = expected.take(low, axis) * (1 - share) + expected.take(high, axis) * share
    np.testing.assert_allclose(net.run(out), expected, rtol=1e-5, atol=1e-3)


def test_batch_norm_and_constants_leave_nothing_but_the_convolution() -> None:
    net = Net()
    kernel = RNG.normal(size=(1, 1, 3, 3)).astype(np.float32)
    net.conv("c", "x", kernel)
    gamma, beta, mean, variance = (RNG.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    names = [net.const(f"bn{i}", v) for i, v in enumerate((gamma, beta, mean, variance))]
    net.node("bn", "FusedBatchNorm", "c", *names, epsilon=0.001)
    net.node("mul", "Mul", net.const("factor", np.array([1, 2, 3], np.float32)), "bn")
    out = net.node("add", "AddV2", "mul", net.const("offset", np.array([5, 6, 7], np.float32)))
    conv = net.frame.astype(np.float64) @ kernel[0, 0]
    expected = ((conv - mean) / np.sqrt(variance + 0.001) * gamma + beta) * [1, 2, 3] + [5, 6, 7]
    np.testing.assert_allclose(net.run(out), expected, rtol=1e-4, atol=1e-2)
    assert {n.op_type for n in net.model(out).graph.node} == {"Cast", "Conv", "Identity"}


def test_a_constant_behind_a_residual_sum_is_folded_only_where_nobody_else_looks() -> None:
    for shared in (False, True):
        net = Net()
        kernel = RNG.normal(size=(1, 1, 3, 3)).astype(np.float32)
        net.start()
        net.conv("c", "start", kernel)
        net.node("sum", "AddN", "c", "start")
        out = net.node("biased", "Add", "sum", net.const("b", np.array([100, 200, 300], np.float32)))
        frame = net.frame.astype(np.float64)
        expected = frame @ kernel[0, 0] + frame + [100, 200, 300]
        if shared:
            net.node("activated", "Relu", "c")
            out = net.node("both", "Add", "biased", "activated")
            expected = expected + np.maximum(frame @ kernel[0, 0], 0)
        np.testing.assert_allclose(net.run(out), expected, rtol=1e-4, atol=1e-1)


def test_layout_swaps_around_a_convolution_disappear() -> None:
    net = Net()
    kernel = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)
    to_last, to_first = net.const("last", [0, 2, 3, 1]), net.const("first", [0, 3, 1, 2])
    net.node("pad", "Pad", "x", net.const("pads", [[0, 0], [0, 0], [1, 1], [1, 1]]))
    net.node("t1", "Transpose", "pad", to_last)
    net.conv("c", "t1", kernel, padding="VALID")
    net.node("t2", "Transpose", "c", to_first)
    net.node("relu", "LeakyRelu", "t2", alpha=0.1)
    out = net.node("cat", "ConcatV2", "relu", "relu", net.const("axis", 1))
    model = net.model(out, axes=NCHW)
    assert {n.op_type for n in model.graph.node} == {"Cast", "Conv", "LeakyRelu", "Concat", "Identity"}
    conv = convolved(net.frame, kernel, 1, False)
    expected = np.concatenate([np.where(conv > 0, conv, 0.1 * conv)] * 2, axis=2)
    np.testing.assert_allclose(net.run(out, axes=NCHW), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("sixth", [1 / 6, float(np.float16(1 / 6))], ids=["exact", "stored as half"])
def test_hard_swish_is_one_gate_and_keeps_its_stored_factor(sixth: float) -> None:
    net = Net()
    scale = (0.05,) * 3
    net.start()
    net.node("scaled", "Mul", net.const("sixth", np.float32(sixth)), "start")
    net.node("plus", "Add", "start", net.const("three", np.float32(3)))
    net.node("clip", "Relu6", "plus")
    net.node("swish", "Mul", "scaled", "clip")
    kernel = RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)
    out = net.conv("c", "swish", kernel)
    x = (net.frame - np.array([128.0] * 3)) * 0.05
    expected = convolved(sixth * x * np.clip(x + 3, 0, 6), kernel, 1, False)
    np.testing.assert_allclose(net.run(out, scale=scale, mean=(128.0,) * 3), expected, rtol=2e-5, atol=2e-5)
    assert "HardSigmoid" in {n.op_type for n in net.model(out).graph.node}


def test_low_padding_before_max_pooling_never_wins() -> None:
    net = Net(6, 6)
    net.conv("c", "x", -PASS)
    pads = net.const("pads", [[0, 0], [1, 1], [1, 1], [0, 0]])
    net.node("pad", "PadV2", "c", pads, net.const("low", np.float32(-3.4e38)))
    out = net.node("pool", "MaxPool", "pad", ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="VALID")
    padded = np.pad(-net.frame.astype(np.float64), [(1, 1), (1, 1), (0, 0)], constant_values=-1e9)
    expected = np.array([[padded[y : y + 3, x : x + 3].max(axis=(0, 1)) for x in (0, 2, 4)] for y in (0, 2, 4)])
    np.testing.assert_array_equal(net.run(out), expected)


def test_heads_of_several_scales_become_rows_in_cell_order() -> None:
    net = Net(4, 4)
    net.start()
    net.conv("coarse", "start", PASS, strides=[1, 2, 2, 1])
    spec = OutputSpec("rows", ("start", "coarse"), columns=3)
    model = convert(TfGraph(net.nodes, net.constants), "net", InputSpec("x", 4, 4, rgb=False), [spec])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (rows,) = session.run(None, {"frames": net.frame.transpose(2, 0, 1)[None].copy()})
    expected = np.concatenate([net.frame.reshape(-1, 3), net.frame[::2, ::2].reshape(-1, 3)])
    np.testing.assert_array_equal(rows[0], expected)


def unknown_op(net: Net) -> str:
    return net.node("odd", "Erf", net.start())


def shared_batch_norm(net: Net) -> str:
    net.start()
    names = [net.const(f"bn{i}", np.ones(3, np.float32)) for i in range(4)]
    net.node("bn", "FusedBatchNorm", "start", *names)
    return net.node("sum", "Add", "bn", "start")


def odd_nearest(net: Net) -> str:
    return net.node("up", "ResizeNearestNeighbor", net.start(), net.const("size", [9, 9]))


def mixed_layouts(net: Net) -> str:
    net.node("t", "Transpose", net.start(), net.const("p", [0, 3, 1, 2]))
    return net.node("sum", "Add", "t", "start")


def zero_padded_pool(net: Net) -> str:
    net.node("pad", "Pad", net.start(), net.const("pads", [[0, 0], [1, 1], [1, 1], [0, 0]]))
    return net.node("pool", "MaxPool", "pad", ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="VALID")


@pytest.mark.parametrize("make", [unknown_op, shared_batch_norm, odd_nearest, mixed_layouts, zero_padded_pool])
def test_what_cannot_be_expressed_is_refused_rather_than_guessed(make: Any) -> None:
    net = Net()
    with pytest.raises(UnsupportedGraph):
        net.model(make(net))


def test_axes_name_where_tensorflow_axes_lie() -> None:
    assert [("N", "C", "H", "W")[i] for i in NHWC] == ["N", "H", "W", "C"]


def test_a_graph_whose_parts_have_other_sizes_is_refused_with_what_to_do() -> None:
    net = Net()
    net.conv("whole", "x", PASS)
    net.conv("half", "x", PASS, strides=[1, 2, 2, 1])
    with pytest.raises(UnsupportedGraph, match="only the input size that it was made for"):
        net.model(net.node("sum", "AddV2", "whole", "half"))
