"""Writes a `tokenizer.json` from the vocabulary, merges and scores inside a GGUF file."""

from __future__ import annotations

from typing import Any, Final

from skyshore.catalogue.errors import CorruptFile, UnsupportedGraph
from skyshore.catalogue.gguf_file import GgufFile

_CONTROL: Final = 3
_USER_DEFINED: Final = 4

_GPT2_SPLIT: Final = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LLAMA3_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL_SPLITS: Final[dict[str, dict[str, Any]]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2_SPLIT],
    },
    "gpt-2": _GPT2_SPLIT,
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False},
            _GPT2_SPLIT | {"use_regex": False},
        ],
    },
}
"""How text is cut before merging, by GGUF's `tokenizer.ggml.pre`."""


def tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """The content of `tokenizer.json`.

    Raises:
        UnsupportedGraph: another kind of tokenizer, or one that cuts text in an unknown way.
        CorruptFile: the vocabulary is missing or incomplete.
    """
    kind = file.value("tokenizer.ggml.model", str)
    tokens: list[str] = file.value("tokenizer.ggml.tokens", list)
    if kind == "gpt2":
        parts = _byte_level(file, tokens)
    elif kind == "llama":
        parts = _sentencepiece(file, tokens)
    else:
        raise UnsupportedGraph(
            f"{file.path} has a {kind!r} tokenizer; 'gpt2' (byte-level BPE) and 'llama' are read here"
        )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(file, tokens),
        "post_processor": None,
        **parts,
    }


def _added_tokens(file: GgufFile, tokens: list[str]) -> list[dict[str, Any]]:
    types: list[int] = file.value("tokenizer.ggml.token_type", list)
    if len(types) != len(tokens):
        raise CorruptFile(f"{file.path}: {len(tokens)} tokens but {len(types)} token types")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": tokens[index], "special": kind == _CONTROL, **flags}
        for index, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _byte_level(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    cut = str(file.metadata.get("tokenizer.ggml.pre", "gpt-2"))
    if cut not in _BYTE_LEVEL_SPLITS:
        known = ", ".join(sorted(_BYTE_LEVEL_SPLITS))
        raise UnsupportedGraph(f"{file.path} cuts text the {cut!r} way; known ways are {known}")
    merges: list[str] = file.value("tokenizer.ggml.merges", list)
    return {
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL_SPLITS[cut],
        "decoder": _GPT2_SPLIT,
        "model": _bpe(tokens, [merge.split(" ", 1) for merge in merges]),
    }


def _sentencepiece(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    scores: list[float] = file.value("tokenizer.ggml.scores", list)
    if len(scores) != len(tokens):
        raise CorruptFile(f"{file.path}: {len(tokens)} tokens but {len(scores)} scores")
    prefix = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    replace_spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = ([{"type": "Prepend", "prepend": "▁"}] if prefix else []) + [replace_spaces]
    restore: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    restore += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        restore.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = tokens[int(file.metadata.get("tokenizer.ggml.unknown_token_id", 0))]
    model = _bpe(tokens, merges_from_scores(tokens, scores))
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": restore},
        "model": model | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


def merges_from_scores(tokens: list[str], scores: list[float]) -> list[list[str]]:
    """The merge list that a SentencePiece vocabulary implies: best-scored piece first, and every way to halve it."""
    index = {token: position for position, token in enumerate(tokens)}
    found: list[tuple[float, int, int, list[str]]] = []
    for token, score in zip(tokens, scores, strict=True):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in index and right in index:
                found.append((-score, index[left], index[right], [left, right]))
    found.sort(key=lambda entry: entry[:3])
    return [pair for *_, pair in found]


def _bpe(tokens: list[str], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }
