"""Runs a decoder graph: the ONNX Runtime session, its bindings and the key-value memory. One thread may call it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from skyshore.domain.errors import NotFound
from skyshore.engines.llm.errors import EngineMisconfigured
from skyshore.engines.llm.huge_pages import filled_memory, new_ranges, use_huge_pages
from skyshore.engines.llm.kv_memory import CacheShape, KvMemory

_KEPT_BINDINGS: Final = 128
_INPUTS: Final = {"input_ids", "seqlens_k", "total_len", "last"}
_OUTPUTS: Final = {"logits", "next"}
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Per row of a run: logits [rows, vocab] float32 and their arg-max [rows]. Valid until the next run."""

    logits: NDArray[np.float32]
    greedy: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Binding:
    """One shape of run, with the arrays that its raw pointers refer to."""

    io: Any
    input_ids: NDArray[np.int64]
    seqlens_k: NDArray[np.int32]
    total_len: NDArray[np.int32]
    last: NDArray[np.int64]
    output: StepOutput


class Decoder:
    """A loaded model with room for `slots` sequences of `capacity_tokens` each."""

    def __init__(self, model_path: Path, slots: int, capacity_tokens: int, threads: int, *, spin: bool = False) -> None:
        """Load the graph.

        Raises:
            NotFound: no such file.
            EngineMisconfigured: the file is no decoder graph of the kind `skyshore models build` writes.
        """
        before = filled_memory()
        self._session = _open_session(model_path, threads, spin)
        self.huge_page_bytes = use_huge_pages(new_ranges(before, filled_memory()))
        """Of the weights."""
        shape, self.vocab = _check_boundary(self._session, model_path)
        self._slots = slots
        self.kv = KvMemory(shape, slots, capacity_tokens)
        self._bindings: OrderedDict[tuple[int, int, int, int], _Binding] = OrderedDict()
        self.row_multiple = 1
        """Decode runs are padded to a multiple of this many rows."""
        self.row_multiple, self.batch_invariant = self._probe()

    def extend(self, slot: int, tokens: Sequence[int], past: int) -> StepOutput:
        """Append `tokens` to a slot that holds `past` tokens; one row comes back, for the last of them.

        However a prompt is cut into calls, the result is the same to the last bit. To that end an odd call is padded
        by one token: attention over a single new token is another kernel, and matrix kernels treat a row without a
        neighbour differently. What the padding writes lies behind the slot's tokens and is overwritten by the next.
        """
        count = len(tokens)
        padded = count + count % 2
        binding = self._binding(slot, 1, padded, 1)
        binding.input_ids[0, :count] = tokens
        binding.seqlens_k[0] = past + padded - 1
        binding.total_len[...] = past + padded
        binding.last[0] = count - 1
        self._session.run_with_iobinding(binding.io)
        return binding.output

    def decode(self, tokens: Sequence[int], lengths: Sequence[int], spare_length: int = 0) -> StepOutput:
        """Append one token to each of the slots 0..n-1, which hold `lengths` tokens.

        Where the batch must be padded to `row_multiple`, the padding writes behind `spare_length` tokens of slot n.
        """
        rows = len(tokens)
        padded = -(-rows // self.row_multiple) * self.row_multiple
        binding = self._binding(0, padded, 1, rows)
        binding.input_ids[:rows, 0] = tokens
        binding.seqlens_k[:rows] = lengths
        binding.seqlens_k[rows:] = spare_length
        binding.total_len[...] = binding.seqlens_k.max() + 1
        binding.last[:] = np.arange(rows)
        self._session.run_with_iobinding(binding.io)
        return binding.output

    def _probe(self) -> tuple[int, bool]:
        """(smallest `row_multiple` that makes a row's logits independent of the batch, whether there is one).

        Which rows a matrix kernel computes alike depends on weights and processor, so it is measured, not assumed.
        """
        prompt = [index % self.vocab for index in range(1, 7)]
        most = min(3, self._slots)
        self.extend(0, prompt, 0)
        for slot in range(1, most):
            self.kv.copy(0, slot, 0, len(prompt))
        found = 1, False
        for multiple in (1, 2):
            self.row_multiple = multiple
            batches = [rows for rows in range(1, most + 1) if -(-rows // multiple) * multiple <= self._slots]
            lengths = [len(prompt)] * most
            outputs = [self.decode(prompt[:1] * rows, lengths[:rows], lengths[0]).logits for rows in batches]
            if len({row.tobytes() for row in np.concatenate(outputs)}) == 1:
                found = multiple, True
                break
        for slot in range(min(4, self._slots)):
            self.kv.release(slot, 0, len(prompt) + 1)
        return found

    def all_logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [tokens, vocab] at every position, through slot 0; for perplexity, not for serving."""
        count = len(tokens)
        binding = self._binding(0, 1, count, count)
        binding.input_ids[0] = tokens
        binding.seqlens_k[0] = count - 1
        binding.total_len[...] = count
        binding.last[:] = np.arange(count)
        self._session.run_with_iobinding(binding.io)
        return binding.output.logits

    def _binding(self, first_slot: int, rows: int, new_tokens: int, wanted: int) -> _Binding:
        key = (first_slot, rows, new_tokens, wanted)
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = self._bind(*key)
            if len(self._bindings) > _KEPT_BINDINGS:
                self._bindings.popitem(last=False)
        self._bindings.move_to_end(key)
        return binding

    def _bind(self, first_slot: int, rows: int, new_tokens: int, wanted: int) -> _Binding:
        binding = _Binding(
            io=self._session.io_binding(),
            input_ids=np.zeros((rows, new_tokens), np.int64),
            seqlens_k=np.zeros(rows, np.int32),
            total_len=np.zeros((), np.int32),
            last=np.zeros(wanted, np.int64),
            output=StepOutput(np.zeros((wanted, self.vocab), np.float32), np.zeros(wanted, np.int64)),
        )
        for name in sorted(_INPUTS):
            _point(binding.io.bind_input, name, getattr(binding, name))
        _point(binding.io.bind_output, "logits", binding.output.logits)
        _point(binding.io.bind_output, "next", binding.output.greedy)
        for index, buffer in enumerate(self.kv.buffers):
            name = f"{'kv'[index % 2]}.{index // 2}"
            view = buffer[first_slot : first_slot + rows]
            _point(binding.io.bind_input, f"past_{name}", view)
            _point(binding.io.bind_output, f"present_{name}", view)
        return binding


def _point(bind: Any, name: str, array: NDArray[Any]) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _open_session(model_path: Path, threads: int, spin: bool) -> ort.InferenceSession:
    if not model_path.is_file():
        raise NotFound(f"{model_path} is not there; run `skyshore models build` for this model and precision")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    try:
        return ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise EngineMisconfigured(f"{model_path} cannot be loaded: {error}; build it again") from error


def _check_boundary(session: ort.InferenceSession, path: Path) -> tuple[CacheShape, int]:
    """Cache shape and vocabulary of a decoder graph."""
    inputs = {each.name: each for each in session.get_inputs()}
    outputs = {each.name: each for each in session.get_outputs()}
    layers = sum(name.startswith("past_k.") for name in inputs)
    cache = {f"{part}.{layer}" for layer in range(layers) for part in "kv"}
    expected_in = _INPUTS | {f"past_{name}" for name in cache}
    expected_out = _OUTPUTS | {f"present_{name}" for name in cache}
    if not layers or inputs.keys() != expected_in or outputs.keys() != expected_out:
        odd = sorted((inputs.keys() ^ expected_in) | (outputs.keys() ^ expected_out))
        raise EngineMisconfigured(
            f"{path} is no decoder graph as `skyshore models build` writes it: check {', '.join(odd[:4]) or 'past_k.0'}"
        )
    first = inputs["past_k.0"]
    kv_heads, head_dim, vocab = first.shape[1], first.shape[3], outputs["logits"].shape[1]
    if not all(isinstance(size, int) for size in (kv_heads, head_dim, vocab)) or first.type not in _DTYPES:
        raise EngineMisconfigured(f"{path} leaves its cache shape open; heads, head size and vocabulary must be fixed")
    return CacheShape(layers, kv_heads, head_dim, _DTYPES[first.type]), int(vocab)
