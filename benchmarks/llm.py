"""The language-model engine: kernels against llama.cpp on the same weights, and what the engine adds on top of them."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import llm_peer
from benchmarks.llm_contestant import CHUNK_TOKENS, CONTEXT_TOKENS
from benchmarks.llm_engine import engine_metrics
from benchmarks.result import Aim, BenchResult, Metric
from skyshore.catalogue.llama.build import build
from skyshore.catalogue.store import ready

MODEL: Final = "smollm2-135m"
PEER: Final = f"{llm_peer.NAME} {llm_peer.VERSION}"
ROOT: Final = Path(__file__).resolve().parents[1]
PRECISIONS: Final = ("int4", "q4x", "int8", "w8a8")
PEER_FORMATS: Final = ("Q4_1", "Q8_0")
THREADS: Final = (1, 2)
REPEATS: Final = 5
SETTLE_S: Final = 0.15
"""Between two measurements, so that one contestant's spinning threads do not run into the next one's time."""


@dataclass(frozen=True, slots=True)
class LlmCase:
    """One thing to race at."""

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind} {self.size}" if self.kind == "prefill" else f"decode batch {self.size}"


CELLS: Final = (
    LlmCase("prefill", 128),
    LlmCase("prefill", 512),
    LlmCase("decode", 1),
    LlmCase("decode", 4),
    LlmCase("decode", 8),
    LlmCase("decode", 16),
)
SAME_WEIGHTS_AIMS: Final = {"prefill 128": 1.8, "prefill 512": 1.8, "decode batch 8": 1.6, "decode batch 16": 1.9}
"""Our best precision with the file's 4-bit weights over the peer's Q4_1; decode at batch 1 depends on the threads."""
FASTEST_AIM: Final = 1.2

Samples = dict[str, dict[LlmCase, list[float]]]
"""Tokens per second by contestant and cell."""


def run(repeats: int = REPEATS, threads: tuple[int, ...] = THREADS, *, quick: bool = False) -> BenchResult:
    """Race the kernels by thread count, then measure the engine around them; `quick` is one repeat on one thread.

    Raises:
        NotFetched: the model is not in the cache.
    """
    repeats, threads = (1, threads[:1]) if quick else (repeats, threads)
    source = ready(MODEL) / "model.gguf"
    missing = tuple(filter(None, [llm_peer.why_missing()]))
    results: list[Metric] = []
    with tempfile.TemporaryDirectory(prefix="skyshore-bench-llm-") as name:
        folder = Path(name)
        for precision in PRECISIONS:
            build(source, folder, precision)
        formats = {} if missing else _peer_models(source, folder)
        bandwidth = _read_bandwidth_bytes_per_s()
        for count in threads:
            samples = _race(folder, formats, count, repeats)
            results += _kernel_metrics(samples, count)
            if count == 1:
                results += _bound_metrics(folder, samples, bandwidth)
        results += asyncio.run(engine_metrics(folder, repeats))
    settings: dict[str, str | int | float | bool | None] = {
        "model": MODEL,
        "context_tokens": CONTEXT_TOKENS,
        "chunk_tokens": CHUNK_TOKENS,
        "threads": ", ".join(map(str, threads)),
        "onnxruntime": metadata.version("onnxruntime"),
        "read_gb_per_s": round(bandwidth / 1e9, 1),
    }
    return BenchResult("llm", settings, repeats, tuple(results), missing=missing)


# ------------------------------------------------------------------------------------------------ kernels, raced


def _peer_models(source: Path, folder: Path) -> dict[str, Path]:
    target = folder / "q8_0.gguf"
    command = [str(llm_peer.PYTHON), "-m", "benchmarks.llm_contestant", "quantise", str(source), "0", str(target)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return {"Q4_1": source, "Q8_0": target}


def _race(folder: Path, formats: dict[str, Path], threads: int, repeats: int) -> Samples:
    """All contestants alive at once, taking turns cell by cell."""
    contestants = {precision: ("skyshore", folder / f"model-{precision}.onnx") for precision in PRECISIONS}
    contestants |= {name: ("llama.cpp", path) for name, path in formats.items()}
    samples: Samples = {name: {cell: [] for cell in CELLS} for name in contestants}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(_contestant(kind, path, threads)) for name, (kind, path) in contestants.items()
        }
        for _ in range(repeats):
            for cell in CELLS:
                for name, process in processes.items():
                    samples[name][cell].append(_ask(process, cell))
                    time.sleep(SETTLE_S)
    return samples


@contextmanager
def _contestant(kind: str, model: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    python = str(llm_peer.PYTHON) if kind == "llama.cpp" else sys.executable
    command = [python, "-m", "benchmarks.llm_contestant", kind, str(model), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        _answer(process)
        yield process
        if process.stdin:
            process.stdin.close()


def _ask(process: subprocess.Popen[str], cell: LlmCase) -> float:
    assert process.stdin
    process.stdin.write(json.dumps({"kind": cell.kind, "size": cell.size}) + "\n")
    process.stdin.flush()
    return float(_answer(process))


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"contestant {process.args!r} ended with {process.wait()}")
    return line.strip()


def _kernel_metrics(samples: Samples, threads: int) -> list[Metric]:
    found: list[Metric] = []
    peers = [name for name in PEER_FORMATS if name in samples]
    for cell in CELLS:
        title = f"{cell}, {threads} thread{'s' if threads > 1 else ''}"
        for precision in PRECISIONS:
            own = samples[precision][cell]
            same = samples["Q4_1"][cell] if peers and precision in {"q4x", "int4"} else []
            aim = _same_weights_aim(cell, threads) if precision == "q4x" else 0.0
            found.append(_against(f"{title}: {precision}", own, "Q4_1" if same else "", same, aim))
        if peers:
            ours = max(PRECISIONS, key=lambda name: statistics.median(samples[name][cell]))
            theirs = max(peers, key=lambda name: statistics.median(samples[name][cell]))
            fastest = f"{title}: fastest ({ours})"
            found.append(_against(fastest, samples[ours][cell], theirs, samples[theirs][cell], FASTEST_AIM))
    return found


def _same_weights_aim(cell: LlmCase, threads: int) -> float:
    if cell == LlmCase("decode", 1):
        return 1.2 if threads == 1 else 1.0
    return SAME_WEIGHTS_AIMS.get(str(cell), 0.0)


def _against(title: str, own: list[float], peer: str, theirs: list[float], ratio_aim: float) -> Metric:
    """Aims are ratios; the table shows them as the figure that the peer's median makes of them."""
    aim = Aim(round(ratio_aim * statistics.median(theirs), 1), "at_least") if theirs and ratio_aim else None
    label = f"llama.cpp {peer} ({PEER})" if theirs else ""
    return Metric.of_repeats(title, own, "tokens/s", against=label, against_samples=theirs, aim=aim)


def _bound_metrics(folder: Path, samples: Samples, bandwidth: float) -> list[Metric]:
    """Weights must be read once per step, whatever is done with them: that bounds decoding at batch 1."""
    found = []
    for precision in PRECISIONS:
        weight_bytes = (folder / f"model-{precision}.onnx.data").stat().st_size
        shares = [rate * weight_bytes / bandwidth for rate in samples[precision][LlmCase("decode", 1)]]
        aim = Aim(0.6, "at_least") if precision == "int4" else None
        title = f"decode batch 1, 1 thread: {precision}, share of the read-bandwidth bound"
        found.append(Metric.of_repeats(title, shares, "", aim=aim))
    return found


def _read_bandwidth_bytes_per_s() -> float:
    """Best of eight passes over 512 MB with one thread."""
    values = np.ones(128 << 20, np.float32)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        float(values.max())
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times)
