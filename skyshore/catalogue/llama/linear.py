"""How one weight matrix becomes nodes: dense, in quantised blocks, as the file's own Q4_1, or int8 by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skyshore.catalogue.errors import UnsupportedGraph
from skyshore.catalogue.gguf_file import GgufTensor
from skyshore.catalogue.llama.onnx_writer import CONTRIB, OnnxWriter

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

GGUF_BLOCK: Final = 32
"""Values per block in Q4_0, Q4_1 and Q8_0."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights stacked along the output, [outputs, inputs]: several projections of one input run as one product."""

    name: str
    parts: tuple[GgufTensor, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    def dense(self) -> F32:
        """The float32 weights."""
        return np.concatenate([part.dense() for part in self.parts])

    def blocks(self, quantisation: str) -> U8:
        """The file's own bytes, [outputs, blocks per row, bytes per block].

        Raises:
            UnsupportedGraph: a part is stored in another way.
        """
        for part in self.parts:
            if part.quantisation != quantisation:
                raise UnsupportedGraph(
                    f"{part.name} is stored as {part.quantisation}, not {quantisation}, so it cannot be repacked "
                    "without loss; choose another precision"
                )
        outputs, inputs = self.shape
        return np.concatenate([part.raw for part in self.parts]).reshape(outputs, inputs // GGUF_BLOCK, -1)


_ROW_ZERO: Final = helper.make_tensor("row_zero", TensorProto.UINT8, [1], [128])

Linear = Callable[[OnnxWriter, Matrix, str, str], str]
"""(writer, weights, input name, output name) → output name; adds the nodes of `output = input · weightsᵀ`."""


def rotate_half_rows(tensor: GgufTensor, heads: int) -> GgufTensor:
    """Reorder the rows of a query or key projection from interleaved pairs, as GGUF has them, to rotated halves.

    Whole rows move, so the packed blocks of a row stay as they are.
    """
    rows = tensor.shape[0]
    order = np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)
    return replace(tensor, raw=tensor.raw[order])


def dense_linear(dtype: type[np.floating[Any]]) -> Linear:
    """Plain MatMul with weights of `dtype`."""

    def emit(writer: OnnxWriter, matrix: Matrix, x: str, y: str) -> str:
        weights = np.ascontiguousarray(matrix.dense().T.astype(dtype))
        return writer.node("MatMul", [x, writer.weight(f"{matrix.name}.weight", weights)], y)

    return emit


def block_linear(bits: int, block: int, accuracy_level: int) -> Linear:
    """MatMulNBits with symmetric blocks, rounded to nearest from the file's values."""

    def emit(writer: OnnxWriter, matrix: Matrix, x: str, y: str) -> str:
        _check_divisible(matrix, block)
        codes, scales = quantise_blocks(matrix.dense(), bits, block)
        packed = codes if bits == 8 else pack_nibbles(codes)
        inputs = [
            x,
            writer.weight(f"{matrix.name}.codes", packed),
            writer.weight(f"{matrix.name}.scales", scales.reshape(-1)),
        ]
        return writer.node("MatMulNBits", inputs, y, CONTRIB, **_nbits(matrix, bits, block, accuracy_level))

    return emit


def exact_q4_linear(accuracy_level: int) -> Linear:
    """The file's own 4-bit blocks without re-quantising.

    Q4_1 is `d·q + m`: MatMulNBits with zero point 0 gives the `d·q` part, and the sum of each input block times `m`
    the rest. Float zero points would say the same in one node, but their kernel is an order of magnitude slower.
    """

    def emit(writer: OnnxWriter, matrix: Matrix, x: str, y: str) -> str:
        if {part.quantisation for part in matrix.parts} == {"Q4_0"}:
            return _q4_0(writer, matrix, x, y, accuracy_level)
        raw = matrix.blocks("Q4_1")
        scales = _halves(raw, 0)
        minima = _halves(raw, 2)
        outputs, blocks = scales.shape
        inputs = [
            x,
            writer.weight(f"{matrix.name}.codes", repack_gguf_nibbles(raw[:, :, 4:])),
            writer.weight(f"{matrix.name}.scales", scales.reshape(-1)),
            writer.weight(f"{matrix.name}.zeros", np.zeros(outputs * ((blocks + 1) // 2), np.uint8)),
        ]
        product = writer.node(
            "MatMulNBits", inputs, f"{y}:codes", CONTRIB, **_nbits(matrix, 4, GGUF_BLOCK, accuracy_level)
        )
        sum_blocks = np.kron(np.eye(blocks, dtype=np.float32), np.ones((GGUF_BLOCK, 1), np.float32))
        sums = writer.node("MatMul", [x, writer.weight(f"block_sums.{blocks}", sum_blocks)], f"{y}:sums")
        by_block = writer.weight(f"{matrix.name}.minima", np.ascontiguousarray(minima.T))
        return writer.node("Gemm", [sums, by_block, product], y)

    return emit


def _q4_0(writer: OnnxWriter, matrix: Matrix, x: str, y: str, accuracy_level: int) -> str:
    raw = matrix.blocks("Q4_0")
    inputs = [
        x,
        writer.weight(f"{matrix.name}.codes", repack_gguf_nibbles(raw[:, :, 2:])),
        writer.weight(f"{matrix.name}.scales", _halves(raw, 0).reshape(-1)),
    ]
    return writer.node("MatMulNBits", inputs, y, CONTRIB, **_nbits(matrix, 4, GGUF_BLOCK, accuracy_level))


def row_int8_linear(writer: OnnxWriter, matrix: Matrix, x: str, y: str) -> str:
    """Int8 by int8 with one activation scale per token and one weight scale per output.

    A scale per tensor, as ONNX Runtime's own dynamic quantisation has it, would let the rows of a batch change each
    other's rounding; a scale per row keeps an answer the same alone and batched.
    """
    weights = matrix.dense()
    scales = np.maximum(np.abs(weights).max(axis=1), 1e-12) / np.float32(127)
    codes = np.rint(weights / scales[:, None]).astype(np.int8)
    rows, row_scale = quantise_rows(writer, x)
    inputs = [
        rows,
        writer.weight(f"{matrix.name}.codes", np.ascontiguousarray(codes.T)),
        writer.scalar("one", 1.0, np.float32),
        writer.weight(f"{matrix.name}.scales", scales.astype(np.float32)),
        writer.scalar("row_zero", 128, np.uint8),
    ]
    product = writer.node("MatMulIntegerToFloat", inputs, f"{y}:int8", CONTRIB)
    return writer.node("Mul", [product, row_scale], y)


def quantise_rows(writer: OnnxWriter, x: str) -> tuple[str, str]:
    """Add the nodes that turn [rows, inputs] into codes around 128 and a scale [rows, 1].

    A row of zeros has scale 0; whatever its codes are, they are multiplied by that in the end.
    """
    axis = writer.weight("last_axis", np.array([-1], np.int64))
    largest = writer.node("ReduceMax", [writer.node("Abs", [x], f"{x}:abs"), axis], f"{x}:largest", keepdims=1)
    scale = writer.node("Mul", [largest, writer.scalar("int8_step", 1 / 127, np.float32)], f"{x}:scale")
    flat = writer.node("Reshape", [scale, writer.weight("rest", np.array([-1], np.int64))], f"{x}:scales")
    count = writer.once("Shape", [flat], "rows:count")
    zeros = writer.once("ConstantOfShape", [count], "rows:zeros", value=_ROW_ZERO)
    return writer.node("QuantizeLinear", [x, flat, zeros], f"{x}:codes", axis=0), scale


def quantise_blocks(weights: F32, bits: int, block: int) -> tuple[U8, F32]:
    """Round [outputs, inputs] to unsigned codes [outputs, blocks, block] around the middle code, with scales by block.

    The value of largest magnitude in a block lands on the lowest code, which has one step more than the highest.
    """
    middle = 1 << (bits - 1)
    cells = weights.reshape(weights.shape[0], -1, block)
    peak = np.take_along_axis(cells, np.abs(cells).argmax(axis=2)[:, :, None], axis=2)
    scales = peak / np.float32(-middle)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    codes = np.clip(np.rint(cells * inverse) + middle, 0, 2 * middle - 1).astype(np.uint8)
    return codes, scales[:, :, 0]


def pack_nibbles(codes: U8) -> U8:
    """Two neighbouring 4-bit codes a byte, the even one low, as MatMulNBits reads them."""
    return np.asarray(codes[..., 0::2] | (codes[..., 1::2] << 4), np.uint8)


def repack_gguf_nibbles(packed: U8) -> U8:
    """From GGUF's order (byte j holds values j and j+16 of a block) to neighbouring pairs."""
    return pack_nibbles(np.concatenate([packed & 15, packed >> 4], axis=-1))


def q8_0_blocks(tensor: GgufTensor) -> tuple[U8, F32]:
    """Codes [rows, blocks, 32] shifted by 128, and scales [rows, blocks], of a Q8_0 tensor: exact."""
    raw = tensor.raw.reshape(tensor.shape[0], tensor.shape[1] // GGUF_BLOCK, -1)
    return np.asarray(raw[:, :, 2:] ^ np.uint8(128), np.uint8), _halves(raw, 0)


def _halves(raw: U8, offset: int) -> F32:
    """The float16 at `offset` of every block, as float32 [outputs, blocks]."""
    return np.ascontiguousarray(raw[:, :, offset : offset + 2]).view(np.float16)[:, :, 0].astype(np.float32)


def _nbits(matrix: Matrix, bits: int, block: int, accuracy_level: int) -> dict[str, Any]:
    outputs, inputs = matrix.shape
    return {"K": inputs, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": accuracy_level}


def _check_divisible(matrix: Matrix, block: int) -> None:
    inputs = matrix.shape[1]
    if inputs % block:
        raise UnsupportedGraph(f"{matrix.name} has {inputs} inputs, no multiple of the block of {block}")


def stack(name: str, parts: Sequence[GgufTensor]) -> Matrix:
    """Several projections of one input as one matrix."""
    return Matrix(name, tuple(parts))
