"""The dimensions of a Llama model, read from a GGUF file and checked. What cannot run exactly is refused."""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.catalogue.errors import CorruptFile, UnsupportedGraph
from skyshore.catalogue.gguf_file import GgufFile


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes and constants that the decoder graph is built from."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context_tokens: int
    rope_theta: float
    norm_eps: float
    tied_embeddings: bool

    @property
    def query_rows(self) -> int:
        """Output size of the query projection."""
        return self.heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        """Output size of the key (and of the value) projection."""
        return self.kv_heads * self.head_dim


def read_config(file: GgufFile) -> LlamaConfig:
    """Read and check `file`.

    Raises:
        UnsupportedGraph: another architecture, experts, scaled or partial RoPE, biases or other unknown tensors.
        CorruptFile: metadata or tensors are missing, or disagree with each other.
    """
    architecture = file.value("general.architecture", str)
    if architecture != "llama":
        raise UnsupportedGraph(f"{file.path} is a {architecture!r} model; only the 'llama' architecture is built here")
    if file.metadata.get("llama.expert_count", 0):
        raise UnsupportedGraph(f"{file.path} is a mixture of experts; only dense Llama models are built here")
    heads = _positive(file, "llama.attention.head_count")
    hidden = _positive(file, "llama.embedding_length")
    kv_heads = int(file.value("llama.attention.head_count_kv", int, heads))
    head_dim = int(file.value("llama.attention.key_length", int, hidden // heads))
    config = LlamaConfig(
        layers=_positive(file, "llama.block_count"),
        hidden=hidden,
        ffn=_positive(file, "llama.feed_forward_length"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=_vocab_rows(file),
        context_tokens=_positive(file, "llama.context_length"),
        rope_theta=float(file.value("llama.rope.freq_base", float, 10000.0)),
        norm_eps=float(file.value("llama.attention.layer_norm_rms_epsilon", float)),
        tied_embeddings="output.weight" not in file.tensors,
    )
    _check_attention(file, config)
    _check_rope(file, config)
    _check_tensors(file, config)
    return config


def _positive(file: GgufFile, key: str) -> int:
    number = int(file.value(key, int))
    if number <= 0:
        raise CorruptFile(f"{file.path}: metadata {key!r} is {number}")
    return number


def _vocab_rows(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CorruptFile(f"{file.path} has no token_embd.weight")
    return embedding.shape[0]


def _check_attention(file: GgufFile, config: LlamaConfig) -> None:
    if config.kv_heads <= 0 or config.heads % config.kv_heads:
        raise UnsupportedGraph(
            f"{file.path}: {config.heads} query heads cannot share {config.kv_heads} key heads evenly, "
            "as grouped-query attention needs"
        )
    if config.head_dim % 8:
        raise UnsupportedGraph(f"{file.path}: heads of {config.head_dim} values; a multiple of 8 is needed")
    value_length = int(file.value("llama.attention.value_length", int, config.head_dim))
    if value_length != config.head_dim:
        raise UnsupportedGraph(f"{file.path}: value heads of {value_length} beside key heads of {config.head_dim}")


def _check_rope(file: GgufFile, config: LlamaConfig) -> None:
    scaling = file.metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none" or file.metadata.get("llama.rope.scale_linear", 1.0) != 1.0:
        raise UnsupportedGraph(f"{file.path} scales its rotary positions ({scaling}); only plain RoPE is built here")
    if "rope_freqs.weight" in file.tensors:
        raise UnsupportedGraph(f"{file.path} carries per-frequency RoPE factors; only plain RoPE is built here")
    rotated = int(file.value("llama.rope.dimension_count", int, config.head_dim))
    if rotated != config.head_dim:
        raise UnsupportedGraph(f"{file.path} rotates {rotated} of {config.head_dim} values a head; all are needed here")


def _check_tensors(file: GgufFile, config: LlamaConfig) -> None:
    expected = _expected_shapes(config)
    missing = sorted(expected.keys() - file.tensors.keys())
    if missing:
        raise CorruptFile(
            f"{file.path} lacks {len(missing)} tensors, {missing[0]} first; it was not converted to the end"
        )
    unknown = sorted(file.tensors.keys() - expected.keys())
    if unknown:
        raise UnsupportedGraph(
            f"{file.path} holds {unknown[0]}, which a plain Llama has not; leaving it out would be wrong"
        )
    for name, shape in expected.items():
        if file.tensors[name].shape != shape:
            raise CorruptFile(f"{file.path}: {name} is {file.tensors[name].shape}, the metadata asks for {shape}")


def _expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    hidden, ffn, query, kv = config.hidden, config.ffn, config.query_rows, config.kv_rows
    by_part: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "attn_q.weight": (query, hidden),
        "attn_k.weight": (kv, hidden),
        "attn_v.weight": (kv, hidden),
        "attn_output.weight": (hidden, query),
        "ffn_norm.weight": (hidden,),
        "ffn_gate.weight": (ffn, hidden),
        "ffn_up.weight": (ffn, hidden),
        "ffn_down.weight": (hidden, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab, hidden), "output_norm.weight": (hidden,)}
    if not config.tied_embeddings:
        shapes["output.weight"] = (config.vocab, hidden)
    for layer in range(config.layers):
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in by_part.items()}
    return shapes
