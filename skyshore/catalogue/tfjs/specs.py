"""Where a graph is cut: how pixels enter, and which tensors come out. Loads no converter."""

from __future__ import annotations

from dataclasses import dataclass

Axes = tuple[int, int, int, int]

NHWC: Axes = (0, 2, 3, 1)
"""Where TensorFlow's axes N, H, W, C lie in an NCHW tensor."""
NCHW: Axes = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How pixels enter. The ONNX input is uint8 [N, 3, H, W] in BGR order, as OpenCV decodes it.

    `mean` and `scale` are per BGR channel: the network sees (pixel - mean) * scale.
    """

    node: str
    height: int
    width: int
    axes: Axes = NHWC
    rgb: bool = True
    """Whether the network was trained on RGB; the swap goes into the first convolution's weights."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dynamic_size: bool = False


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One ONNX output, made of the heads of several scales.

    `columns` > 0 flattens each head to rows [N, cells, columns] and concatenates them; 0 gives one head as
    [N, C, H, W].
    """

    name: str
    nodes: tuple[str, ...]
    columns: int = 0
