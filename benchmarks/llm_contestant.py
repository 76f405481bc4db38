"""One engine in a process of its own, for `benchmarks.llm`: reads cells as JSON lines, answers with tokens per second.

`python -m benchmarks.llm_contestant skyshore MODEL.onnx THREADS` or `... llama.cpp MODEL.gguf THREADS`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

CONTEXT_TOKENS = 128
"""Tokens already in the cache of each row when decoding starts."""
DECODE_STEPS = 12
MAX_ROWS = 16
MAX_PREFILL_TOKENS = 512
CHUNK_TOKENS = 256
VOCAB = 49152


class Contestant(Protocol):
    """What is raced: a prompt of some length, or decode steps over some rows."""

    def prefill(self, tokens: list[int]) -> None:
        """Compute one prompt from an empty cache."""
        ...

    def fill(self, rows: int, tokens: list[int]) -> None:
        """Put `tokens` into the caches of the first `rows` rows."""
        ...

    def decode(self, tokens: list[int], length: int) -> list[int]:
        """One step over as many rows as `tokens`, each holding `length` tokens; the greedy next tokens."""
        ...


class SkyshoreEngine:
    """Our decoder without the engine around it."""

    def __init__(self, model: Path, threads: int) -> None:
        """Load; the bench has the machine to itself, so threads may spin, as OpenMP's do in the peer."""
        from skyshore.engines.llm.decoder import Decoder  # noqa: PLC0415 - the peer's process must not load it

        capacity = MAX_PREFILL_TOKENS + 64
        self._decoder = Decoder(model, MAX_ROWS + 1, capacity, threads, spin=threads > 1)

    def prefill(self, tokens: list[int]) -> None:
        """In the chunks that the engine uses when nothing else runs."""
        for start in range(0, len(tokens), CHUNK_TOKENS):
            self._decoder.extend(0, tokens[start : start + CHUNK_TOKENS], start)

    def fill(self, rows: int, tokens: list[int]) -> None:
        """The same prompt in every row, at the price of one."""
        self._decoder.extend(0, tokens, 0)
        for row in range(1, rows):
            self._decoder.kv.copy(0, row, 0, len(tokens))

    def decode(self, tokens: list[int], length: int) -> list[int]:
        """One run."""
        next_tokens: list[int] = self._decoder.decode(tokens, [length] * len(tokens)).greedy.tolist()
        return next_tokens


class LlamaCpp:
    """llama.cpp through the low-level calls of llama-cpp-python: one context, one sequence a row."""

    def __init__(self, model: Path, threads: int) -> None:
        """Load the model and make room for every row."""
        self._lib: Any = importlib.import_module("llama_cpp")
        lib = self._lib
        lib.llama_backend_init()
        lib.llama_log_set(_SILENT, ctypes.c_void_p(0))
        self._model = lib.llama_model_load_from_file(str(model).encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx = MAX_ROWS * (MAX_PREFILL_TOKENS + 64)
        params.n_batch = MAX_PREFILL_TOKENS
        params.n_seq_max = MAX_ROWS
        params.n_threads = params.n_threads_batch = threads
        self._context = lib.llama_init_from_model(self._model, params)
        self._batch = lib.llama_batch_init(MAX_PREFILL_TOKENS, 0, 1)

    def prefill(self, tokens: list[int]) -> None:
        """One call; the library cuts it as its own defaults say."""
        self._clear()
        self._run([(token, place, 0, place == len(tokens) - 1) for place, token in enumerate(tokens)])

    def fill(self, rows: int, tokens: list[int]) -> None:
        """The same prompt in every row, at the price of one."""
        self.prefill(tokens)
        for row in range(1, rows):
            self._lib.llama_memory_seq_cp(self._lib.llama_get_memory(self._context), 0, row, -1, -1)

    def decode(self, tokens: list[int], length: int) -> list[int]:
        """One call with one token a row, and the arg-max of each row's logits."""
        self._run([(token, length, row, True) for row, token in enumerate(tokens)])
        rows = [self._lib.llama_get_logits_ith(self._context, row) for row in range(len(tokens))]
        return [int(np.ctypeslib.as_array(row, shape=(VOCAB,)).argmax()) for row in rows]

    def _clear(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)

    def _run(self, entries: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(entries)
        for index, (token, place, row, wanted) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = place
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row
            batch.logits[index] = wanted
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")


_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SILENT = _LOG_CALLBACK(lambda _level, _text, _data: None)
"""Drops the library's log lines; it must outlive the library's use of it."""


def measure(contestant: Contestant, kind: str, size: int, rng: np.random.Generator) -> float:
    """Tokens per second of one cell."""
    if kind == "prefill":
        tokens = rng.integers(100, VOCAB, size).tolist()
        start = time.perf_counter()
        contestant.prefill(tokens)
        return size / (time.perf_counter() - start)
    prompt = rng.integers(100, VOCAB, CONTEXT_TOKENS).tolist()
    contestant.fill(size, prompt)
    tokens = contestant.decode(prompt[:size], CONTEXT_TOKENS)  # warms this batch size up
    start = time.perf_counter()
    for step in range(1, DECODE_STEPS + 1):
        tokens = contestant.decode(tokens, CONTEXT_TOKENS + step)
    return size * DECODE_STEPS / (time.perf_counter() - start)


def quantise_q8_0(source: Path, target: Path) -> None:
    """The same weights as 8-bit blocks, made by llama.cpp itself: its fastest format on this kind of processor."""
    lib: Any = importlib.import_module("llama_cpp")
    params = lib.llama_model_quantize_default_params()
    params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise RuntimeError("llama.cpp could not quantise the model to Q8_0")


def main() -> None:
    """Answer cells until the input ends."""
    kind, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind == "quantise":
        quantise_q8_0(model, Path(sys.argv[4]))
        return
    contestant: Contestant = SkyshoreEngine(model, threads) if kind == "skyshore" else LlamaCpp(model, threads)
    rng = np.random.default_rng(0)
    measure(contestant, "prefill", 64, rng)
    print("ready", flush=True)
    for line in sys.stdin:
        cell = json.loads(line)
        print(json.dumps(measure(contestant, cell["kind"], cell["size"], rng)), flush=True)


if __name__ == "__main__":
    main()
