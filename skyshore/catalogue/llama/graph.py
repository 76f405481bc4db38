"""The decoder graph of a Llama model: one run takes new tokens of some cache rows and gives their next-token logits.

Inputs: input_ids[B, S] int64; seqlens_k[B] int32, each row's length after the run minus one; total_len int32, the
longest of those lengths; last[R] int64, the flat rows (b·S + s) whose logits are wanted; past_k.i and past_v.i
[B, kv heads, capacity, head dim]. Outputs: logits[R, vocab] float32, next[R] int64 (their arg-max) and present_k.i,
present_v.i, meant to be bound to the very buffers of the past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skyshore.catalogue.gguf_file import GgufFile, GgufTensor
from skyshore.catalogue.llama.config import LlamaConfig
from skyshore.catalogue.llama.linear import Linear, Matrix, q8_0_blocks, quantise_blocks, rotate_half_rows, stack
from skyshore.catalogue.llama.onnx_writer import CONTRIB, OnnxWriter

_EMBEDDING_BLOCK: Final = 32


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """What distinguishes the precisions."""

    linear: Linear
    """How the projections inside the layers are computed."""
    float_type: type[np.floating[Any]]
    """Type of activations and of the key-value cache."""
    int8_embedding: bool
    """Whether embedding and output head share one matrix of int8 blocks instead of a dense one."""
    head_accuracy_level: int = 4


class LlamaGraph:
    """Emits the nodes of one model, layer after layer."""

    def __init__(self, file: GgufFile, config: LlamaConfig, plan: GraphPlan, writer: OnnxWriter) -> None:
        self._file = file
        self._config = config
        self._plan = plan
        self._writer = writer
        self._type = helper.np_dtype_to_tensor_dtype(np.dtype(plan.float_type))

    def emit(self) -> None:
        """Add every node and weight, then save."""
        normed, residual = self._first_norm(self._rows(self._embed(), self._config.hidden, "embedded:rows"))
        for layer in range(self._config.layers):
            attended = self._attention(layer, normed)
            normed, residual = self._skip_norm(f"l{layer}.ffn", f"blk.{layer}.ffn_norm.weight", attended, residual)
            transformed = self._feed_forward(layer, normed)
            following = layer + 1
            weight = f"blk.{following}.attn_norm.weight" if following < self._config.layers else "output_norm.weight"
            normed, residual = self._skip_norm(f"l{following}.in", weight, transformed, residual)
        self._head(normed)
        self._writer.save("llama", self._inputs(), self._outputs())

    def _tensor(self, name: str) -> GgufTensor:
        return self._file.tensors[name]

    def _float(self, name: str, values: NDArray[Any]) -> str:
        return self._writer.weight(name, values.astype(self._plan.float_type))

    def _rows(self, x: str, width: int, name: str) -> str:
        """Tokens of all sequences below each other, [B·S, width]: one form for everything but attention."""
        shape = self._writer.weight(f"rows_shape.{width}", np.array([-1, width], np.int64))
        return self._writer.node("Reshape", [x, shape], name)

    # ------------------------------------------------------------------------------------ embedding and head

    def _embed(self) -> str:
        if not self._plan.int8_embedding:
            table = self._float("embedding", self._tensor("token_embd.weight").dense())
            return self._writer.node("Gather", [table, "input_ids"], "embedded", axis=0)
        writer, hidden = self._writer, self._config.hidden
        codes, scales = self._int8_table("token_embd.weight")
        raw = writer.node("Cast", [writer.node("Gather", [codes, "input_ids"], "embedded:codes")], "embedded:raw", to=1)
        centred = writer.node("Sub", [raw, writer.scalar("int8_zero", 128.0, np.float32)], "embedded:centred")
        flat_scales = writer.node("Gather", [scales, "input_ids"], "embedded:flat_scales")
        blocks = writer.node(
            "Unsqueeze", [flat_scales, writer.weight("last_axis", np.array([-1], np.int64))], "embedded:scales"
        )
        scaled = writer.node("Mul", [centred, blocks], "embedded:blocks")
        shape = writer.weight("hidden_shape", np.array([0, 0, hidden], np.int64))
        return writer.node("Reshape", [scaled, shape], "embedded")

    def _int8_table(self, name: str) -> tuple[str, str]:
        """Codes [rows, blocks, 32] and scales [rows, blocks]; the same bytes serve the embedding and a tied head."""
        tensor = self._tensor(name)
        if tensor.quantisation == "Q8_0":
            codes, scales = q8_0_blocks(tensor)
        else:
            codes, scales = quantise_blocks(tensor.dense(), 8, _EMBEDDING_BLOCK)
        return self._writer.weight(f"{name}.codes", codes), self._writer.weight(f"{name}.scales", scales)

    def _head(self, normed: str) -> None:
        """Logits of the wanted rows only: those of a whole prompt would be vocabulary times length."""
        writer, config = self._writer, self._config
        rows = writer.node("Gather", [normed, "last"], "last_rows", axis=0)
        name = "token_embd.weight" if config.tied_embeddings else "output.weight"
        if self._plan.int8_embedding:
            sizes: dict[str, Any] = {"K": config.hidden, "N": config.vocab, "bits": 8, "block_size": _EMBEDDING_BLOCK}
            level = self._plan.head_accuracy_level
            inputs = [rows, *self._int8_table(name)]
            writer.node("MatMulNBits", inputs, "logits", CONTRIB, accuracy_level=level, **sizes)
        else:
            table = "embedding" if config.tied_embeddings else self._float("head", self._tensor(name).dense())
            narrow = self._plan.float_type is np.float16
            product = writer.node("Gemm", [rows, table], "logits:narrow" if narrow else "logits", transB=1)
            if narrow:
                writer.node("Cast", [product], "logits", to=TensorProto.FLOAT)
        writer.node("ArgMax", ["logits"], "next", axis=-1, keepdims=0)

    # ------------------------------------------------------------------------------------------------ layers

    def _first_norm(self, x: str) -> tuple[str, str]:
        weight = self._float("blk.0.attn_norm.weight", self._tensor("blk.0.attn_norm.weight").dense())
        epsilon = self._config.norm_eps
        normed = self._writer.node("SimplifiedLayerNormalization", [x, weight], "l0.in", axis=-1, epsilon=epsilon)
        return normed, x

    def _skip_norm(self, name: str, weight: str, x: str, residual: str) -> tuple[str, str]:
        """(norm of the sum, the sum); the sum is the residual from here on."""
        total = f"{name}:residual"
        self._writer.node(
            "SkipSimplifiedLayerNormalization",
            [x, residual, self._float(weight, self._tensor(weight).dense())],
            name,
            CONTRIB,
            more_outputs=("", "", total),
            epsilon=self._config.norm_eps,
        )
        return name, total

    def _attention(self, layer: int, x: str) -> str:
        writer, config = self._writer, self._config
        parts = [
            rotate_half_rows(self._tensor(f"blk.{layer}.attn_q.weight"), config.heads),
            rotate_half_rows(self._tensor(f"blk.{layer}.attn_k.weight"), config.kv_heads),
            self._tensor(f"blk.{layer}.attn_v.weight"),
        ]
        qkv = self._plan.linear(writer, stack(f"l{layer}.qkv", parts), x, f"l{layer}.qkv")
        qkv = writer.node("Reshape", [qkv, self._grid()], f"{qkv}:grid")
        cos, sin = self._rotary()
        past = [f"past_k.{layer}", f"past_v.{layer}"]
        attended = writer.node(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_len", cos, sin],
            f"l{layer}.attended",
            CONTRIB,
            more_outputs=(f"present_k.{layer}", f"present_v.{layer}"),
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        output = Matrix(f"l{layer}.out", (self._tensor(f"blk.{layer}.attn_output.weight"),))
        attended = self._rows(attended, config.query_rows, f"{attended}:rows")
        return self._plan.linear(writer, output, attended, f"l{layer}.out")

    def _grid(self) -> str:
        """The shape [B, S, rest] that attention wants, once per run."""
        given = self._writer.once("Shape", ["input_ids"], "grid:given")
        rest = self._writer.weight("rest", np.array([-1], np.int64))
        return self._writer.once("Concat", [given, rest], "grid", axis=0)

    def _rotary(self) -> tuple[str, str]:
        """Tables [context, head dim / 2] of RoPE (arXiv 2104.09864), in the rotated-halves layout."""
        config = self._config
        frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
        angles = np.outer(np.arange(config.context_tokens), frequencies)
        return self._float("cos", np.cos(angles)), self._float("sin", np.sin(angles))

    def _feed_forward(self, layer: int, x: str) -> str:
        writer, name = self._writer, f"l{layer}.gate_up"
        parts = [self._tensor(f"blk.{layer}.ffn_{part}.weight") for part in ("gate", "up")]
        both = self._plan.linear(writer, stack(name, parts), x, name)
        gate, up = f"l{layer}.gate", f"l{layer}.up"
        writer.node("Split", [both], gate, more_outputs=(up,), axis=-1, num_outputs=2)
        swish = writer.node("Mul", [gate, writer.node("Sigmoid", [gate], f"{gate}:sigmoid")], f"{gate}:swish")
        product = writer.node("Mul", [swish, up], f"l{layer}.gated")
        down = Matrix(f"l{layer}.down", (self._tensor(f"blk.{layer}.ffn_down.weight"),))
        return self._plan.linear(writer, down, product, f"l{layer}.down")

    # ---------------------------------------------------------------------------------------------- boundary

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        describe = helper.make_tensor_value_info
        return [
            describe("input_ids", TensorProto.INT64, ["batch", "new_tokens"]),
            describe("seqlens_k", TensorProto.INT32, ["batch"]),
            describe("total_len", TensorProto.INT32, []),
            describe("last", TensorProto.INT64, ["rows"]),
            *self._cache("past"),
        ]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        describe = helper.make_tensor_value_info
        return [
            describe("logits", TensorProto.FLOAT, ["rows", self._config.vocab]),
            describe("next", TensorProto.INT64, ["rows"]),
            *self._cache("present"),
        ]

    def _cache(self, side: str) -> list[onnx.ValueInfoProto]:
        shape: list[int | str | None] = ["batch", self._config.kv_heads, "capacity", self._config.head_dim]
        names = [f"{side}_{part}.{layer}" for layer in range(self._config.layers) for part in "kv"]
        return [helper.make_tensor_value_info(name, self._type, shape) for name in names]
