"""ONNX Runtime sessions with a thread budget, on the best execution provider this machine has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from skyshore.domain.errors import NotFound

PREFERRED_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""TensorRT is used only when a setting names it: it compiles for minutes at each new batch size."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a session may use of the machine."""

    intra_op_threads: int = 0
    """Threads within one operation; 0 takes every core."""
    spinning: bool = False
    """Whether idle threads spin while they wait for work: faster alone, harmful beside other processes."""
    providers: tuple[str, ...] = ()
    """Execution providers in order of preference; empty takes the best that are present."""


class OnnxSession:
    """One loaded model. `run` may be called from any one thread at a time."""

    def __init__(self, model: Path, options: SessionOptions | None = None) -> None:
        """Load `model`.

        Raises:
            NotFound: no such file, or none of the wanted providers is present.
        """
        if not model.is_file():
            raise NotFound(f"no model at {model}; `skyshore models list` shows what can be fetched", param="model")
        options = options or SessionOptions()
        providers = choose_providers(options.providers)
        # Loading makes the loading thread round denormal numbers to zero. The caller's thread must keep its numbers.
        with ThreadPoolExecutor(1) as loader:
            load = loader.submit(onnxruntime.InferenceSession, str(model), _native(options), providers=providers)
            self._session = load.result()
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute all outputs, in the order of `outputs`. Releases the GIL while it computes."""
        answer: list[NDArray[Any]] = self._session.run(None, feeds)
        return answer


def choose_providers(wanted: Sequence[str] = ()) -> list[str]:
    """Keep the wanted (or preferred) providers that this build of ONNX Runtime has.

    Raises:
        NotFound: none of them is present.
    """
    present = onnxruntime.get_available_providers()
    chosen = [provider for provider in wanted or PREFERRED_PROVIDERS if provider in present]
    if not chosen:
        raise NotFound(f"none of the providers {', '.join(wanted)} is present; this build has {', '.join(present)}")
    return chosen


def _native(options: SessionOptions) -> onnxruntime.SessionOptions:
    native = onnxruntime.SessionOptions()
    native.intra_op_num_threads = options.intra_op_threads
    native.inter_op_num_threads = 1
    native.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    native.add_session_config_entry("session.set_denormal_as_zero", "1")
    native.log_severity_level = 3
    return native
