"""The values a tfjs → ONNX conversion is made of: tensors with their layout, convolutions open to folding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.onnx_build import OnnxBuilder
from skyshore.catalogue.tfjs.specs import Axes, InputSpec

Array = NDArray[Any]
NO_PADS = (0, 0, 0, 0)


@dataclass(slots=True)
class Conv:
    """A convolution whose weights may still take up constants that follow it."""

    weights: Array
    """[out, in / groups, kernel height, kernel width]"""
    bias: Array
    weights_name: str
    bias_name: str

    def fold(self, factor: Array, offset: Array) -> None:
        """Make it compute factor * conv(x) + offset, per output channel."""
        self.weights = self.weights * factor.reshape(-1, 1, 1, 1)
        self.bias = self.bias * factor + offset


@dataclass(frozen=True, slots=True)
class Plane:
    """A tensor of the ONNX graph and what is known of it."""

    tensor: str
    shape: tuple[int, int, int, int]
    """N, C, H, W at the nominal input size."""
    axes: Axes
    pads: tuple[int, int, int, int] = NO_PADS
    """Spatial padding (top, left, bottom, right) that is still owed."""
    pad_value: float = 0.0
    foldable: Conv | None = None
    """The convolution that can absorb a per-channel constant added here."""
    scalable: bool = False
    """Whether `foldable` can absorb a factor as well; not so behind a sum."""
    origin: tuple[str, str, float] | None = None
    """(`times` or `relu6_plus`, source tensor, constant): two halves of a hard swish."""
    scale: Array | None = None
    """Factor per channel (or one for all) still owed; a convolution takes it into its weights."""
    reverse_channels: bool = False
    """Whether the next convolution was trained on the opposite channel order."""


Value = Plane | Array


@dataclass(slots=True)
class Scope:
    """What the conversion of one node may look at and add to."""

    source: InputSpec
    build: OnnxBuilder = field(default_factory=OnnxBuilder)
    values: dict[str, Value] = field(default_factory=dict)
    convs: list[Conv] = field(default_factory=list)

    def value(self, reference: str) -> Value:
        """Look an input up by the name a node uses for it."""
        name = reference.removesuffix(":0")
        if name not in self.values:
            raise UnsupportedGraph(f"{reference} is a second output, which no known operation has")
        return self.values[name]

    def scaled(self, reference: str) -> Plane:
        """Look up a tensor that is no constant and owes at most a factor, which the caller must carry on."""
        value = self.value(reference)
        if not isinstance(value, Plane):
            raise UnsupportedGraph(f"{reference} is a constant where a tensor was expected")
        if value.pads != NO_PADS or value.reverse_channels:
            raise UnsupportedGraph(f"{reference} is padded or of another channel order; its consumer takes up neither")
        return value

    def plane(self, reference: str) -> Plane:
        """Look up a tensor that owes nothing; a factor still owed is paid here, once for all consumers."""
        value = self.scaled(reference)
        if value.scale is None:
            return value
        factor = self.build.constant(value.scale.reshape(1, -1, 1, 1).astype(np.float32))
        paid = Plane(self.build.add("Mul", [value.tensor, factor]), value.shape, value.axes)
        self.values[reference.removesuffix(":0")] = paid
        return paid

    def constant(self, reference: str) -> Array:
        """Look up a constant."""
        value = self.value(reference)
        if isinstance(value, Plane):
            raise UnsupportedGraph(f"{reference} is computed where a constant was expected")
        return value
