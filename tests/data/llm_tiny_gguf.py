"""A Llama small enough for tests, with random weights, written by the `gguf` package rather than by our own code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Storage
from numpy.typing import NDArray

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class TinyLlama:
    layers: int = 2
    hidden: int = 64
    ffn: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    context: int = 512
    theta: float = 10000.0
    epsilon: float = 1e-5
    tied: bool = True
    storage: Storage = Storage.Q4_1
    embedding: Storage = Storage.Q8_0
    seed: int = 0


def byte_alphabet() -> list[str]:
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(spare)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types, and merges: specials, every byte, and a few words."""
    alphabet = byte_alphabet()
    merges = ["t h", "th e", "Ġ the", "i n", "a n", "Ġ a", "e r", "o n"]
    tokens = [*SPECIAL, *alphabet, *("".join(merge.split()) for merge in merges)]
    tokens += [f"<|spare{index}|>" for index in range(288 - len(tokens))]
    types = [3 if token.startswith("<|") else 1 for token in tokens]
    return tokens, types, merges


def weights(spec: TinyLlama) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(spec.seed)
    vocab = len(vocabulary()[0])

    def matrix(rows: int, columns: int, gain: float = 1.0) -> NDArray[np.float32]:
        return (rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def norm() -> NDArray[np.float32]:
        return (1 + 0.1 * rng.standard_normal(spec.hidden)).astype(np.float32)

    found = {"token_embd.weight": matrix(vocab, spec.hidden, 8.0), "output_norm.weight": norm()}
    if not spec.tied:
        found["output.weight"] = matrix(vocab, spec.hidden, 8.0)
    for layer in range(spec.layers):
        prefix = f"blk.{layer}."
        found |= {
            prefix + "attn_norm.weight": norm(),
            prefix + "attn_q.weight": matrix(spec.heads * spec.head_dim, spec.hidden, 2.0),
            prefix + "attn_k.weight": matrix(spec.kv_heads * spec.head_dim, spec.hidden, 2.0),
            prefix + "attn_v.weight": matrix(spec.kv_heads * spec.head_dim, spec.hidden, 2.0),
            prefix + "attn_output.weight": matrix(spec.hidden, spec.heads * spec.head_dim, 2.0),
            prefix + "ffn_norm.weight": norm(),
            prefix + "ffn_gate.weight": matrix(spec.ffn, spec.hidden, 2.0),
            prefix + "ffn_up.weight": matrix(spec.ffn, spec.hidden, 2.0),
            prefix + "ffn_down.weight": matrix(spec.hidden, spec.ffn, 2.0),
        }
    return found


def write_tiny_gguf(
    path: Path,
    spec: TinyLlama = TinyLlama(),
    *,
    architecture: str = "llama",
    extra: dict[str, str | int | float] | None = None,
    more_tensors: dict[str, NDArray[np.float32]] | None = None,
    leave_out: str = "",
) -> Path:
    tokens, types, merges = vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(spec.theta)
    writer.add_layer_norm_rms_eps(spec.epsilon)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for key, value in (extra or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    for name, values in (weights(spec) | (more_tensors or {})).items():
        if name == leave_out:
            continue
        storage = Storage.F32 if values.ndim == 1 else spec.storage
        if name in {"token_embd.weight", "output.weight"}:
            storage = spec.embedding
        writer.add_tensor(name, gguf.quants.quantize(values, storage), raw_dtype=storage)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
