"""Turns a Llama GGUF file into the folder that the language-model engine runs: graph, weights, tokenizer, config."""

from __future__ import annotations

import json
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from skyshore.catalogue.errors import CatalogueError
from skyshore.catalogue.gguf_file import GgufFile
from skyshore.catalogue.llama.config import LlamaConfig, read_config
from skyshore.catalogue.llama.graph import GraphPlan, LlamaGraph
from skyshore.catalogue.llama.linear import block_linear, dense_linear, exact_q4_linear, row_int8_linear
from skyshore.catalogue.llama.onnx_writer import OnnxWriter
from skyshore.catalogue.llama.tokenizer import tokenizer_json


class Precision(StrEnum):
    """How weights are stored and multiplied."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    """Symmetric blocks of 32, activations rounded to int8 by block inside the kernel."""
    W8A8 = "w8a8"
    """One int8 scale per output and per token: the fastest in prefill and at large batches."""
    Q4X = "q4x"
    """The file's own 4-bit blocks, without re-quantising."""
    INT4 = "int4"
    """Symmetric blocks of 64: smallest, and a measurable step down in quality."""


def build(gguf_path: Path, out_dir: Path, precision: str, *, accuracy_level: int = 4) -> Path:
    """Write `model-<precision>.onnx` with its `.data`, `tokenizer.json` and `config.json` into `out_dir`.

    Files appear whole or not at all. `accuracy_level` is MatMulNBits' own word: 4 lets its kernels round activations
    to int8, which is fast; 0 keeps them float32, which is exact (`model-<precision>-exact.onnx`).

    Returns:
        The path of the graph.

    Raises:
        CorruptFile: the GGUF is damaged or cut off.
        UnsupportedGraph: its architecture, RoPE, tokenizer or storage types are not the ones built here.
        CatalogueError: an unknown precision.
    """
    if precision not in list(Precision):
        raise CatalogueError(
            f"unknown precision {precision!r}; choose one of {', '.join(Precision)}", param="precision"
        )
    file = GgufFile.open(gguf_path)
    config = read_config(file)
    tokenizer = tokenizer_json(file)
    description = describe(file, config)
    out_dir.mkdir(parents=True, exist_ok=True)
    name = f"model-{precision}.onnx" if accuracy_level == 4 else f"model-{precision}-exact.onnx"
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out_dir) as scratch_name:
        scratch = Path(scratch_name)
        graph_path, data_path = scratch / name, scratch / f"{name}.data"
        with OnnxWriter(graph_path, data_path, data_path.name) as writer:
            LlamaGraph(file, config, _plan(file, Precision(precision), accuracy_level), writer).emit()
        (scratch / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
        (scratch / "config.json").write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
        # The graph goes last and an old one goes first: a graph that is there always fits the data beside it.
        (out_dir / name).unlink(missing_ok=True)
        for finished in (data_path, scratch / "tokenizer.json", scratch / "config.json", graph_path):
            os.replace(finished, out_dir / finished.name)
    return out_dir / name


def describe(file: GgufFile, config: LlamaConfig) -> dict[str, Any]:
    """The content of `config.json`: what engine and tokenizer must know beside the graph.

    Raises:
        CorruptFile: no end-of-sequence token, or one outside the vocabulary.
    """
    ends = [int(file.value("tokenizer.ggml.eos_token_id", int))]
    ends += [int(file.metadata[key]) for key in ("tokenizer.ggml.eot_token_id",) if key in file.metadata]
    return {
        "architecture": "llama",
        "name": str(file.metadata.get("general.name", "")),
        "licence": str(file.metadata.get("general.license", "")),
        "context_tokens": config.context_tokens,
        "vocab": config.vocab,
        "layers": config.layers,
        "hidden": config.hidden,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "eos_token_ids": sorted(set(ends)),
        "bos_token_id": int(file.metadata.get("tokenizer.ggml.bos_token_id", -1)),
        "add_bos": bool(file.metadata.get("tokenizer.ggml.add_bos_token", False)),
        "chat_template": str(file.metadata.get("tokenizer.chat_template", "")),
    }


def _plan(file: GgufFile, precision: Precision, accuracy_level: int) -> GraphPlan:
    exact_embedding = file.tensors["token_embd.weight"].quantisation == "Q8_0"
    match precision:
        case Precision.FP32:
            return GraphPlan(dense_linear(np.float32), np.float32, int8_embedding=False)
        case Precision.FP16:
            return GraphPlan(dense_linear(np.float16), np.float16, int8_embedding=False)
        case Precision.INT8:
            return GraphPlan(block_linear(8, 32, accuracy_level), np.float32, True, accuracy_level)
        case Precision.W8A8:
            return GraphPlan(row_int8_linear, np.float32, True, accuracy_level)
        case Precision.Q4X:
            return GraphPlan(exact_q4_linear(accuracy_level), np.float32, exact_embedding, accuracy_level)
        case Precision.INT4:
            return GraphPlan(block_linear(4, 64, accuracy_level), np.float32, True, accuracy_level)
