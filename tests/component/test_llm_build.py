"""The built graphs against a Llama written out in numpy, from the file's own interleaved layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Storage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.errors import CatalogueError, CorruptFile, UnsupportedGraph
from skyshore.catalogue.gguf_file import GgufFile
from skyshore.catalogue.llama.build import Precision, build
from skyshore.catalogue.llama.linear import pack_nibbles, quantise_blocks, repack_gguf_nibbles
from skyshore.catalogue.llama.tokenizer import merges_from_scores
from skyshore.domain.errors import Internal, InvalidTask, NotFound
from skyshore.domain.llm import ChatMessage
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.errors import EngineMisconfigured
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

F32 = NDArray[np.float32]
TOKENS = [5, 100, 7, 7, 250, 33, 19, 260, 1, 2, 77, 140, 3]


def reference_logits(path: Path, spec: TinyLlama, tokens: list[int]) -> F32:
    """Logits [tokens, vocab] by the book: RMS norm, interleaved RoPE (arXiv 2104.09864), grouped heads, SwiGLU."""
    w = {name: tensor.dense() for name, tensor in GgufFile.open(path).tensors.items()}
    length, group = len(tokens), spec.heads // spec.kv_heads
    angles = np.outer(np.arange(length), spec.theta ** (-np.arange(0, spec.head_dim, 2) / spec.head_dim))
    turn = np.exp(1j * angles)[:, None, :]

    def norm(x: F32, weight: F32) -> F32:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + spec.epsilon) * weight)

    def rotate(x: F32) -> F32:
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)

    x = w["token_embd.weight"][tokens]
    future = np.triu(np.full((length, length), -np.inf), 1)
    for layer in range(spec.layers):
        p = f"blk.{layer}."
        h = norm(x, w[p + "attn_norm.weight"])
        q, k, v = ((h @ w[f"{p}attn_{part}.weight"].T).reshape(length, -1, spec.head_dim) for part in ("q", "k", "v"))
        q, k = rotate(q), np.repeat(rotate(k), group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(spec.head_dim) + future
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", share, np.repeat(v, group, axis=1)).reshape(length, -1)
        x = x + mixed @ w[p + "attn_output.weight"].T
        h = norm(x, w[p + "ffn_norm.weight"])
        gate, up = h @ w[p + "ffn_gate.weight"].T, h @ w[p + "ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "ffn_down.weight"].T
    head = w.get("output.weight", w["token_embd.weight"])
    return np.asarray(norm(x, w["output_norm.weight"]) @ head.T, np.float32)


def agreement(path: Path, out: Path, precision: str, spec: TinyLlama, **options: int) -> tuple[float, float]:
    """(RMS error relative to the spread of the logits, share of positions with the same arg-max)."""
    decoder = Decoder(build(path, out, precision, **options), slots=2, capacity_tokens=64, threads=1)
    ours, expected = decoder.all_logits(TOKENS), reference_logits(path, spec, TOKENS)
    error = np.sqrt(((ours - expected) ** 2).mean()) / expected.std()
    return float(error), float((ours.argmax(1) == expected.argmax(1)).mean())


SHAPES = {
    "grouped": TinyLlama(),
    "untied": TinyLlama(tied=False),
    "one key head": TinyLlama(kv_heads=1),
    "no grouping": TinyLlama(kv_heads=4),
    "wide heads": TinyLlama(heads=2, head_dim=64, theta=500000.0),
    "Q8_0": TinyLlama(storage=Storage.Q8_0),
    "Q4_0": TinyLlama(storage=Storage.Q4_0),
    "F16 embedding": TinyLlama(embedding=Storage.F16, storage=Storage.F16),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_equals_the_reference(shape: str, tmp_path: Path) -> None:
    spec = SHAPES[shape]
    error, same = agreement(write_tiny_gguf(tmp_path / "t.gguf", spec), tmp_path, "fp32", spec)
    assert error < 1e-5
    assert same == 1


@pytest.mark.parametrize("shape", ["grouped", "untied", "Q4_0"])
def test_q4x_loses_nothing_when_activations_stay_float(shape: str, tmp_path: Path) -> None:
    spec = SHAPES[shape]
    error, same = agreement(write_tiny_gguf(tmp_path / "t.gguf", spec), tmp_path, "q4x", spec, accuracy_level=0)
    assert error < 1e-5
    assert same == 1


@pytest.mark.parametrize(
    ("precision", "error_bound"), [("fp16", 0.01), ("int8", 0.08), ("w8a8", 0.1), ("q4x", 0.15), ("int4", 0.8)]
)
@pytest.mark.parametrize("shape", ["grouped", "untied"])
def test_rounded_precisions_stay_near_the_reference(
    shape: str, precision: str, error_bound: float, tmp_path: Path
) -> None:
    spec = SHAPES[shape]
    error, _ = agreement(write_tiny_gguf(tmp_path / "t.gguf", spec), tmp_path, precision, spec)
    assert 0 < error < error_bound


def test_a_build_leaves_graph_data_tokenizer_and_config_and_nothing_else(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "t.gguf")
    out = tmp_path / "out"
    assert build(source, out, "int4") == out / "model-int4.onnx"
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model-int4.onnx",
        "model-int4.onnx.data",
        "tokenizer.json",
    ]
    config = json.loads((out / "config.json").read_text())
    assert config["context_tokens"] == 512
    assert config["eos_token_ids"] == [2]
    build(source, out, "int4")
    Decoder(out / "model-int4.onnx", slots=1, capacity_tokens=16, threads=1)


REFUSALS = {
    "another architecture": (TinyLlama(), {"architecture": "qwen2"}, UnsupportedGraph, "'qwen2'"),
    "heads that do not group": (TinyLlama(heads=4, kv_heads=3), {}, UnsupportedGraph, "cannot share 3 key heads"),
    "odd head size": (TinyLlama(head_dim=12, storage=Storage.F32), {}, UnsupportedGraph, "multiple of 8"),
    "scaled RoPE": (TinyLlama(), {"extra": {"llama.rope.scaling.type": "yarn"}}, UnsupportedGraph, "yarn"),
    "partial RoPE": (TinyLlama(), {"extra": {"llama.rope.dimension_count": 8}}, UnsupportedGraph, "rotates 8 of 16"),
    "experts": (TinyLlama(), {"extra": {"llama.expert_count": 8}}, UnsupportedGraph, "mixture of experts"),
    "a bias": (
        TinyLlama(),
        {"more_tensors": {"blk.0.attn_q.bias": np.zeros(64, np.float32)}},
        UnsupportedGraph,
        "attn_q.bias",
    ),
    "a missing weight": (TinyLlama(), {"leave_out": "blk.1.ffn_up.weight"}, CorruptFile, "blk.1.ffn_up.weight"),
    "sizes that disagree": (TinyLlama(), {"extra": {"llama.feed_forward_length": 96}}, CorruptFile, "ffn"),
    "an unknown cut of text": (TinyLlama(), {"extra": {"tokenizer.ggml.pre": "xyz"}}, UnsupportedGraph, "'xyz'"),
    "an unknown tokenizer": (TinyLlama(), {"extra": {"tokenizer.ggml.model": "bert"}}, UnsupportedGraph, "'bert'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_run_exactly_is_refused_by_name_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    spec, changes, kind, words = REFUSALS[case]
    source = write_tiny_gguf(tmp_path / "t.gguf", spec, **changes)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        build(source, tmp_path / "out", "fp32")
    assert not (tmp_path / "out").exists()


def test_a_build_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "t.gguf", TinyLlama(storage=Storage.Q8_0))
    with pytest.raises(UnsupportedGraph, match="Q8_0, not Q4_1"):
        build(source, tmp_path / "out", "q4x")
    assert list((tmp_path / "out").iterdir()) == []


def test_blocks_must_divide_the_inputs(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "t.gguf", TinyLlama(hidden=96))
    with pytest.raises(UnsupportedGraph, match="no multiple of the block of 64"):
        build(source, tmp_path / "out", "int4")


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="fp32, fp16, int8"):
        build(tmp_path / "t.gguf", tmp_path, "int3")


def test_nibbles_are_repacked_in_order() -> None:
    codes = np.arange(32, dtype=np.uint8) % 16
    codes[16:] = 15 - codes[16:]
    gguf_packed = np.asarray(codes[:16] | (codes[16:] << 4), np.uint8)
    packed = repack_gguf_nibbles(gguf_packed[None])
    np.testing.assert_array_equal(packed, pack_nibbles(codes[None]))
    np.testing.assert_array_equal(np.stack([packed[0] & 15, packed[0] >> 4], axis=1).reshape(-1), codes)


@pytest.mark.parametrize(("bits", "block"), [(4, 64), (8, 32)])
def test_blocks_round_to_nearest(bits: int, block: int) -> None:
    weights = np.random.default_rng(1).standard_normal((6, 128)).astype(np.float32)
    weights[3] = 0
    codes, scales = quantise_blocks(weights, bits, block)
    middle = 1 << (bits - 1)
    restored = (codes.astype(np.float32) - middle) * scales[:, :, None]
    error = np.abs(restored.reshape(weights.shape) - weights).reshape(6, -1, block)
    # Half a step, or a whole one where the value opposite the peak meets the shorter side of the code range.
    assert np.all(error <= np.abs(scales)[:, :, None] * 1.0001)
    assert np.mean(error <= np.abs(scales)[:, :, None] * 0.5001) > 0.98
    assert np.all(restored.reshape(weights.shape)[3] == 0)


# ------------------------------------------------------------------------------------------------ the tokenizer


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build(write_tiny_gguf(folder / "model.gguf"), folder, "fp32")
    return folder


def test_text_goes_there_and_back(model_dir: Path) -> None:
    tokenizer = Tokenizer.open(model_dir)
    text = "the 12 anthems — naïve 北京 😀\n  end"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    table = tokenizer.token_bytes()
    assert b"".join(table[index] for index in ids).decode() == text
    assert tokenizer.encode("the") == [tokenizer.encode("the")[0]], "merges are applied"


def test_special_tokens_are_one_token_and_no_text(model_dir: Path) -> None:
    tokenizer = Tokenizer.open(model_dir)
    assert tokenizer.encode("<|im_start|>a<|im_end|>")[::2] == [1, 2]
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.token_bytes()[1] == b""


def test_a_conversation_is_rendered_by_the_models_template(model_dir: Path) -> None:
    tokenizer = Tokenizer.open(model_dir)
    messages = (ChatMessage("system", "Be brief."), ChatMessage("user", "hi"))
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.render_chat(messages) == rendered
    assert tokenizer.count_chat(messages) == len(tokenizer.encode(rendered))


FRAGMENTS = st.sampled_from(
    ("the", " ", "\n", "  ", "<|im_start|>", "<|im_end|>", "<|", "é", "北京", "123", "don't", "'s", "\t", "x" * 40)
)
CONTENTS = st.lists(FRAGMENTS, max_size=8).map("".join)
ROLE_NAMES = st.sampled_from(("system", "user", "assistant"))


@given(st.lists(st.builds(ChatMessage, ROLE_NAMES, CONTENTS), min_size=1, max_size=4))
def test_turns_counted_one_by_one_are_the_tokens_of_the_whole(model_dir: Path, messages: list[ChatMessage]) -> None:
    tokenizer = Tokenizer.open(model_dir)
    for _ in range(2):  # the second time from memory
        assert tokenizer.count_chat(messages) == len(tokenizer.encode_chat(messages))


@pytest.mark.parametrize(
    ("messages", "words"),
    [((), "must not be empty"), ((ChatMessage("wizard", "x"),), "unknown role 'wizard'")],
)
def test_conversations_that_mean_nothing_are_refused(
    model_dir: Path, messages: tuple[ChatMessage, ...], words: str
) -> None:
    with pytest.raises(InvalidTask, match=words):
        Tokenizer.open(model_dir).count_chat(messages)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{{ raise_exception('roles must alternate') }}", InvalidTask),
        ("{{ messages[0].nothing.more }}", InvalidTask),
        ("{{ ''.__class__.__mro__ }}", InvalidTask),
        ("{% for i in range(10**9) %}x{% endfor %}", InvalidTask),
        ("{% for %}", Internal),
        ("", InvalidTask),
    ],
)
def test_a_bad_or_hostile_template_ends_in_a_clear_error(
    model_dir: Path, tmp_path: Path, template: str, kind: type[Exception]
) -> None:
    config = json.loads((model_dir / "config.json").read_text()) | {"chat_template": template}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_bytes((model_dir / "tokenizer.json").read_bytes())
    with pytest.raises(kind, match="template"):
        Tokenizer.open(tmp_path).render_chat((ChatMessage("user", "x"),))


def test_missing_and_damaged_files_are_named(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Internal, match=r"config\.json is damaged"):
        Tokenizer.open(tmp_path)
    (tmp_path / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    with pytest.raises(Internal, match=r"tokenizer\.json is damaged"):
        Tokenizer.open(tmp_path)


def test_merges_follow_the_scores_of_a_sentencepiece_vocabulary() -> None:
    tokens = ["a", "b", "c", "ab", "bc", "abc"]
    scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0]
    assert merges_from_scores(tokens, scores) == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]


# -------------------------------------------------------------------------------------------------- the decoder


def test_files_that_are_no_decoder_graph_are_refused(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="models build"):
        Decoder(tmp_path / "model-int4.onnx", slots=1, capacity_tokens=16, threads=1)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((model_dir / "model-fp32.onnx").read_bytes()[:5000])
    with pytest.raises(EngineMisconfigured, match="cannot be loaded"):
        Decoder(broken, slots=1, capacity_tokens=16, threads=1)


@pytest.mark.parametrize("precision", list(Precision))
def test_how_a_prompt_is_cut_and_who_shares_a_run_changes_no_bit(precision: str, tmp_path: Path) -> None:
    path = build(write_tiny_gguf(tmp_path / "t.gguf", TinyLlama(hidden=128, ffn=192)), tmp_path, precision)
    decoder = Decoder(path, slots=9, capacity_tokens=80, threads=1)
    assert decoder.batch_invariant
    prompt = [(7 * place) % 280 for place in range(41)]

    def logits_after(slot: int, cuts: list[int]) -> bytes:
        past = 0
        for size in cuts:
            output = decoder.extend(slot, prompt[past : past + size], past)
            past += size
        assert past == len(prompt)
        return output.logits.tobytes()

    whole = logits_after(0, [41])
    for cuts in ([20, 21], [1] * 41, [3] * 13 + [2], [40, 1], [16, 16, 9]):
        assert logits_after(1, cuts) == whole, cuts
    alone = decoder.decode([9], [41]).logits[0].tobytes()
    for rows in range(2, 9):
        for slot in range(rows):
            logits_after(slot, [41])
        decoder.extend(0, prompt[:5], 0)
        together = decoder.decode([3] + [9] * (rows - 1), [5] + [41] * (rows - 1)).logits
        assert all(row.tobytes() == alone for row in together[1:]), rows
