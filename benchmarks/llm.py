"""The language-model engine: kernels against llama.cpp on the same weights, and what the engine adds on top of them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.llm_contestant import CHUNK_TOKENS, CONTEXT_TOKENS
from benchmarks.result import Aim, BenchResult, Metric
from skyshore.catalogue.llama_build import build
from skyshore.catalogue.store import ready
from skyshore.domain.llm import LlmInput, Sampling, TokenChunk
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings

MODEL: Final = "smollm2-135m"
PEER: Final = "llama-cpp-python"
PEER_VERSION: Final = "0.3.36"
PRECISIONS: Final = ("int4", "q4x", "int8", "w8a8")
PEER_FORMATS: Final = ("Q4_1", "Q8_0")
THREADS: Final = (1, 2)
REPEATS: Final = 5
SETTLE_S: Final = 0.15
"""Between two measurements, so that one contestant's spinning threads do not run into the next one's time."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to race at."""

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind} {self.size}" if self.kind == "prefill" else f"decode batch {self.size}"


CELLS: Final = (
    Cell("prefill", 128),
    Cell("prefill", 512),
    Cell("decode", 1),
    Cell("decode", 4),
    Cell("decode", 8),
    Cell("decode", 16),
)
SAME_WEIGHTS_AIMS: Final = {"prefill 128": 1.8, "prefill 512": 1.8, "decode batch 8": 1.6, "decode batch 16": 1.9}
"""Our best precision with the file's 4-bit weights over the peer's Q4_1; decode at batch 1 depends on the threads."""
FASTEST_AIM: Final = 1.2

ENGINE_PROMPT_TOKENS: Final = 32
ENGINE_OUTPUT_TOKENS: Final = 160
"""Long enough that all sixteen answers stream together for most of their length."""
BARE_CONTEXT_TOKENS: Final = 72
BARE_STEPS: Final = 100
"""Where the engine's rows stand, on average, while all of them stream."""

Samples = dict[str, dict[Cell, list[float]]]
"""Tokens per second by contestant and cell."""


def run(repeats: int = REPEATS, threads: tuple[int, ...] = THREADS) -> BenchResult:
    """Race the kernels by thread count, then measure the engine around them.

    Raises:
        NotFetched: the model is not in the cache.
    """
    source = ready(MODEL) / "model.gguf"
    missing = _missing_peer()
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
        results += asyncio.run(_engine_metrics(folder, repeats))
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


def _missing_peer() -> tuple[str, ...]:
    if importlib.util.find_spec("llama_cpp") is None:
        return (f"{PEER} {PEER_VERSION} is not installed: pip install {PEER}=={PEER_VERSION} (it compiles for long)",)
    if metadata.version(PEER) != PEER_VERSION:
        return (f"{PEER} is {metadata.version(PEER)}; the bench is pinned to {PEER_VERSION}",)
    return ()


def _peer_models(source: Path, folder: Path) -> dict[str, Path]:
    target = folder / "q8_0.gguf"
    command = [sys.executable, "-m", "benchmarks.llm_contestant", "quantise", str(source), "0", str(target)]
    subprocess.run(command, check=True, capture_output=True)
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
    command = [sys.executable, "-m", "benchmarks.llm_contestant", kind, str(model), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _answer(process)
        yield process
        if process.stdin:
            process.stdin.close()


def _ask(process: subprocess.Popen[str], cell: Cell) -> float:
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


def _same_weights_aim(cell: Cell, threads: int) -> float:
    if cell == Cell("decode", 1):
        return 1.2 if threads == 1 else 1.0
    return SAME_WEIGHTS_AIMS.get(str(cell), 0.0)


def _against(title: str, own: list[float], peer: str, theirs: list[float], ratio_aim: float) -> Metric:
    """Aims are ratios; the table shows them as the figure that the peer's median makes of them."""
    aim = Aim(round(ratio_aim * statistics.median(theirs), 1), "at_least") if theirs and ratio_aim else None
    label = f"llama.cpp {peer} ({PEER} {PEER_VERSION})" if theirs else ""
    return Metric.of_repeats(title, own, "tokens/s", against=label, against_samples=theirs, aim=aim)


def _bound_metrics(folder: Path, samples: Samples, bandwidth: float) -> list[Metric]:
    """Weights must be read once per step, whatever is done with them: that bounds decoding at batch 1."""
    found = []
    for precision in PRECISIONS:
        weight_bytes = (folder / f"model-{precision}.onnx.data").stat().st_size
        shares = [rate * weight_bytes / bandwidth for rate in samples[precision][Cell("decode", 1)]]
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


# --------------------------------------------------------------------------------------- the engine around them


async def _engine_metrics(folder: Path, repeats: int) -> list[Metric]:
    settings = LlmEngineSettings(folder, precision="int4", threads=1, context_tokens=2048, kv_budget_bytes=1 << 30)
    bare = Decoder(folder / "model-int4.onnx", settings.slots + 1, 512, settings.threads)
    engine = await OnnxLlmEngine.start(settings)
    greedy = Sampling(max_tokens=ENGINE_OUTPUT_TOKENS, temperature=0, ignore_eos=True)
    drawn = replace(greedy, temperature=0.8, top_p=0.95, seed=1)
    loops, engines, samplings, quiet, disturbed = [], [], [], [], []
    for _ in range(repeats):
        loops.append(await asyncio.to_thread(_bare_tokens_per_s, bare, settings.slots, BARE_STEPS))
        engines.append(await _engine_tokens_per_s(engine, settings.slots, greedy))
        samplings.append(await _engine_tokens_per_s(engine, settings.slots, drawn))
        quiet.append(await _p99_gap_s(engine, long_prompt_tokens=0))
        disturbed.append(await _p99_gap_s(engine, long_prompt_tokens=1900))
    await engine.close()
    label, aim = "bare kernel loop", Aim(round(0.93 * statistics.median(loops), 1), "at_least")
    gap_aim = Aim(round(2 * statistics.median(quiet), 4))
    return [
        Metric.of_repeats(
            "engine, batch 16, greedy", engines, "tokens/s", against=label, against_samples=loops, aim=aim
        ),
        Metric.of_repeats("engine, batch 16, top-p 0.95", samplings, "tokens/s", against=label, against_samples=loops),
        Metric.of_repeats(
            "p99 token gap of 8 answers while a 1,900-token prompt arrives",
            disturbed,
            "s",
            against="without that prompt",
            against_samples=quiet,
            aim=gap_aim,
        ),
    ]


def _bare_tokens_per_s(decoder: Decoder, rows: int, steps: int) -> float:
    """Decode runs with nothing around them, over the lengths that the engine's rows have in its own measurement."""
    prompt = list(range(100, 100 + BARE_CONTEXT_TOKENS))
    for row in range(rows):
        decoder.extend(row, prompt, 0)
    tokens = [5] * rows
    start = time.perf_counter()
    for step in range(steps):
        tokens = decoder.decode(tokens, [BARE_CONTEXT_TOKENS + step] * rows).greedy.tolist()
    return rows * steps / (time.perf_counter() - start)


async def _engine_tokens_per_s(engine: OnnxLlmEngine, rows: int, sampling: Sampling) -> float:
    """Tokens received by `rows` concurrent readers, from the moment all stream until the first one ends."""
    arrivals: list[list[float]] = [[] for _ in range(rows)]

    async def read(row: int) -> None:
        prompt = tuple(range(100 + row, 100 + row + ENGINE_PROMPT_TOKENS))
        async for item in engine.generate(_task(), LlmInput(prompt_token_ids=prompt, sampling=sampling)):
            if isinstance(item, TokenChunk):
                arrivals[row] += [time.perf_counter()] * item.token_count

    await asyncio.gather(*(read(row) for row in range(rows)))
    start, stop = max(times[0] for times in arrivals), min(times[-1] for times in arrivals)
    return sum(start < at <= stop for times in arrivals for at in times) / (stop - start)


async def _p99_gap_s(engine: OnnxLlmEngine, long_prompt_tokens: int) -> float:
    """99th percentile of the time between tokens of 8 running answers."""
    gaps: list[float] = []

    async def read(row: int) -> None:
        last = 0.0
        chosen = Sampling(max_tokens=120, temperature=0, ignore_eos=True)
        request = LlmInput(prompt_token_ids=tuple(range(200 + row, 232 + row)), sampling=chosen)
        async for item in engine.generate(_task(), request):
            now = time.perf_counter()
            if isinstance(item, TokenChunk) and last:
                gaps.append(now - last)
            last = now

    async def disturb() -> None:
        await asyncio.sleep(0.5)
        first = int(time.perf_counter() * 1000) % 1000  # a new prompt each time, lest the prefix cache answer it
        prompt = tuple(1000 + first + (7 * place) % 40_000 for place in range(long_prompt_tokens))
        request = LlmInput(prompt_token_ids=prompt, sampling=Sampling(max_tokens=1, temperature=0))
        async for _ in engine.generate(_task(), request):
            pass

    readers = [read(row) for row in range(8)]
    await asyncio.gather(*readers, *([disturb()] if long_prompt_tokens else []))
    return float(np.percentile(gaps, 99))


def _task() -> Task:
    return Task("bench", TaskKind.LLM, deadline_s=600)
