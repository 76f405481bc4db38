"""Spatial complexity of a picture: its structure at each scale, and the entropy of its grey levels.

The sum of the structural vector from its first entry on is half the variance of the picture minus that of its coarsest
version: contrast, nothing more. White noise and a smooth ramp can have equal sums, but not equal vectors. So give a
predictor the whole vector, or a sum without C_0; never only the full sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CANVAS_SIDE = 256
"""Pictures are scaled to this square first, so that the values of different cameras can be compared."""
SCALES = 8
"""Entries of the structural vector; 2 ** SCALES is the canvas's side, so the coarsest version has one grey level."""
GREY_BINS = 32
_LEVELS_PER_BIN = np.uint16(256 // GREY_BINS)

Luma = NDArray[np.uint8]
"""[height, width], 8-bit grey."""
Canvas = NDArray[np.float32]
"""[side, side], grey in -1..1."""


def canvas(luma: Luma, side: int = CANVAS_SIDE) -> Canvas:
    """Scale a picture of any shape to a square by box filtering. Pixels repeat where it is smaller.

    Boxes are as many whole pixels wide as cover the picture, so they overlap where its side is no multiple of `side`.
    """
    rows = _box_sums(luma, side)
    sums = _box_sums(np.ascontiguousarray(rows.T), side).T
    pixels = -(-luma.shape[0] // side) * -(-luma.shape[1] // side)
    return np.ascontiguousarray(sums * np.float32(1 / (127.5 * pixels)) - np.float32(1))


def _box_sums(plane: NDArray[np.uint8] | NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """Sum `count` boxes of rows. Whole rows at a time, which is fast in numpy."""
    height = plane.shape[0]
    starts = np.arange(count) * height // count
    sums = np.zeros((count, plane.shape[1]), np.uint32)
    for offset in range(-(-height // count)):
        sums += plane[np.minimum(starts + offset, height - 1)]
    return sums


def structural_complexity(grey: Canvas, scales: int = SCALES) -> NDArray[np.float64]:
    """Multi-scale structural complexity C_0 … C_{scales-1} (arXiv 2003.04632) for blocks of side 1, 2, 4 and on.

    C_k = <(f_{k+1} - f_k)^2> / 2, where f_k is the picture with every block of side 2^k replaced by its mean. Because
    blocks nest, <f_{k+1} f_k> = <f_{k+1}^2>, and C_k is half the drop of the mean square from one scale to the next.

    The canvas's side must be a multiple of 2 ** scales.
    """
    level = grey - grey.mean(dtype=np.float64)  # centred: the squares then differ without rounding
    squares = [np.square(level).mean()]
    for _ in range(scales):
        pairs = level[0::2] + level[1::2]
        level = (pairs[:, 0::2] + pairs[:, 1::2]) / 4
        squares.append(np.square(level).mean())
    return np.maximum(-np.diff(np.array(squares, np.float64)), 0.0) / 2


def entropy_2d(grey: Canvas) -> float:
    """Entropy in bits of the pair (grey level, mean of its 3 × 3 neighbourhood): 0 for a flat picture.

    H = -sum p_ij log2 p_ij over a joint histogram of 32 × 32; border pixels are left out.
    """
    levels = ((grey + 1) * np.float32(127.5) + np.float32(0.5)).astype(np.uint16)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    pairs = (levels[1:-1, 1:-1] // _LEVELS_PER_BIN) * np.uint16(GREY_BINS) + sums // np.uint16(9 * _LEVELS_PER_BIN)
    counts = np.bincount(pairs.ravel(), minlength=GREY_BINS**2)
    shares = counts[counts > 0] / pairs.size
    return float(max(-np.sum(shares * np.log2(shares)), 0.0))


def complexity_vector(luma: Luma) -> tuple[float, ...]:
    """C_0 … C_7 and then the two-dimensional entropy: what `TaskProfile.complexity` carries.

    At most 2 ms for a 768 × 576 frame on one core.
    """
    grey = canvas(luma)
    return (*structural_complexity(grey).tolist(), entropy_2d(grey))
