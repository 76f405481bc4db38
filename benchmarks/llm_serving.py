"""Serving a language model through gateway and SSE: ours, ours without batching, and llama-cpp-python's own server.

Prompt and answer lengths come from Azure's conversation trace of 2023, scaled so that its longest request fills the
context; arrivals are Poisson at shares of the capacity our engine showed at the start. Every target gets the very same
requests at the same instants, one target after the other, and all run their engine on one thread. 8-bit weights and
activations on both sides: the fastest format of each.

Windows start from an empty system, so their first third is not counted: an engine that works on many answers at a time
has then begun more than it has sent, and a short window would hold that against it.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from benchmarks import llm_peer
from benchmarks.gateway_targets import Processes, Target, answers, free_ports, processes, start_own_system
from benchmarks.llm_serving_load import LoadRequest, Seen, burst_s, p99_gap_s, run_window, words
from benchmarks.result import Aim, BenchResult, Metric
from skyshore.catalogue.llama.build import build
from skyshore.catalogue.store import ready
from skyshore.workload.llm_traces import read_azure

MODEL: Final = "smollm2-135m"
PRECISION: Final = "w8a8"
PEER_FORMAT: Final = "Q8_0"
TRACE: Final = Path(__file__).parents[2] / "shared/data/llm/AzureLLMInferenceTrace_conv.csv"
CONTEXT_TOKENS: Final = 2048
SLOTS: Final = 24
LOADS: Final = (0.2, 0.6, 0.9, 1.2)
"""Arrival rates as shares of our capacity."""
REPEATS: Final = 5
WINDOW_S: Final = 4.5
OVERLOAD_WINDOW_S: Final = 14.0
"""Above capacity, where the queue needs time to show."""
BURST: Final = 32
"""Requests at once, to see what a target can do at most: enough that the last answers, which thin out, weigh little."""
THROUGHPUT_AIM: Final = 1.8
LONG_PROMPT_TOKENS: Final = 1900
"""Words; with the tokens some of them add the prompt comes to about 2,000."""
OURS: Final = "skyshore"
UNBATCHED: Final = "skyshore, batching off"
PEER: Final = f"{llm_peer.NAME} {llm_peer.VERSION} server"

Windows = dict[tuple[str, float], list[list[Seen]]]
"""By target and load, one entry a repeat."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much to measure."""

    repeats: int = REPEATS
    loads: tuple[float, ...] = LOADS
    bursts: int = 3

    @staticmethod
    def window_s(load: float) -> float:
        """How long requests arrive at a share of capacity."""
        return OVERLOAD_WINDOW_S if load > 1 else WINDOW_S


QUICK: Final = LoadPlan(repeats=1, loads=(1.2,), bursts=1)


def run(*, quick: bool = False) -> BenchResult:
    """Run the bench; `quick` is one repeat at one load.

    Raises:
        NotFetched: the model is not in the cache.
        FileNotFoundError: the trace is not there.
    """
    plan = QUICK if quick else LoadPlan()
    lengths = scaled_lengths(TRACE, CONTEXT_TOKENS)
    missing = tuple(filter(None, [llm_peer.why_missing()]))
    with ExitStack() as stack:
        models = stack.enter_context(_models())
        targets = [stack.enter_context(_own(*each)) for each in ((OURS, models, SLOTS), (UNBATCHED, models, 1))]
        if not missing:
            targets.append(stack.enter_context(_llama_server()))
        bursts, windows, gaps = asyncio.run(_measure(targets, plan, lengths))
    results = [
        *_burst_metrics(bursts),
        *_load_metrics(windows, [target.name for target in targets[1:]], plan),
        _gap_metric(gaps),
    ]
    settings: dict[str, str | int | float | bool | None] = {
        "model": f"{MODEL}:{PRECISION}",
        "peer_format": PEER_FORMAT,
        "engine_threads": 1,
        "slots": SLOTS,
        "window_s": WINDOW_S,
        "overload_window_s": OVERLOAD_WINDOW_S,
        "mean_prompt_tokens": round(statistics.mean(prompt for prompt, _ in lengths)),
        "mean_max_tokens": round(statistics.mean(output for _, output in lengths)),
    }
    return BenchResult("llm_serving", settings, plan.repeats, tuple(results), missing=missing)


def scaled_lengths(trace: Path, context_tokens: int) -> list[tuple[int, int]]:
    """(prompt tokens, answer tokens) of every request, scaled so that the longest one fills the context."""
    with trace.open(encoding="utf-8") as lines:
        pairs = [(each.prompt_tokens, each.output_tokens) for each in read_azure(lines)]
    scale = context_tokens / max(prompt + output for prompt, output in pairs)
    return [(max(8, int(prompt * scale)), max(4, int(output * scale))) for prompt, output in pairs]


# ------------------------------------------------------------------------------------------------------ targets


@contextmanager
def _models() -> Iterator[Path]:
    """A cache folder that holds the model at one precision more than the user's."""
    with TemporaryDirectory(prefix="skyshore-bench-models-") as name:
        folder = Path(name) / MODEL
        folder.mkdir()
        for path in ready(MODEL).iterdir():
            (folder / path.name).symlink_to(path)
        build(folder / "model.gguf", folder, PRECISION)
        yield Path(name)


@contextmanager
def _own(name: str, models: Path, slots: int) -> Iterator[Target]:
    """The whole system with one real node."""
    with processes() as group:
        node = {
            "SKYSHORE_MODELS": str(models),
            "SKYSHORE_NODE_ENGINE": "onnx",
            "SKYSHORE_NODE_MODELS": f"{MODEL}:{PRECISION}",
            "SKYSHORE_NODE_SLOTS": str(slots),
            "SKYSHORE_NODE_THREADS": "1",
        }
        gateway = start_own_system(group, node)[0]
        yield Target(name, gateway.url.partition("/v1/")[0], MODEL)


@contextmanager
def _llama_server() -> Iterator[Target]:
    """The peer's own server, told not to drop a running answer when the next request comes, as it would by default."""
    with processes() as group:
        model = _peer_model(group)
        (port,) = free_ports(1)
        argv = (
            *(str(llm_peer.PYTHON), "-m", "llama_cpp.server", "--model", str(model), "--model_alias", MODEL),
            *("--n_ctx", str(CONTEXT_TOKENS), "--n_threads", "1", "--n_threads_batch", "1"),
            *("--host", "127.0.0.1", "--port", str(port), "--interrupt_requests", "false"),
        )
        url = f"http://127.0.0.1:{port}"
        group.start("llama-server", argv, {}, answers(f"{url}/v1/models"))
        yield Target(PEER, url, MODEL)


def _peer_model(group: Processes) -> Path:
    source, target = ready(MODEL) / "model.gguf", group.folder / "q8_0.gguf"
    command = [str(llm_peer.PYTHON), "-m", "benchmarks.llm_contestant", "quantise", str(source), "0", str(target)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    return target


# -------------------------------------------------------------------------------------------------- measurement


async def _measure(
    targets: Sequence[Target], plan: LoadPlan, lengths: Sequence[tuple[int, int]]
) -> tuple[dict[str, list[float]], Windows, dict[str, list[float]]]:
    rng = np.random.default_rng(0)
    ours = targets[0]
    bursts: dict[str, list[float]] = {target.name: [] for target in targets}
    for target in targets:  # warms up
        await burst_s(target.url, target.model, _requests(lengths, np.zeros(6), rng))
    for _ in range(plan.bursts):
        requests = _requests(lengths, np.zeros(BURST), rng)
        for target in targets:
            bursts[target.name].append(BURST / await burst_s(target.url, target.model, requests))
    capacity = statistics.median(bursts[OURS])
    windows: Windows = defaultdict(list)
    gaps: dict[str, list[float]] = {"quiet": [], "disturbed": []}
    for repeat in range(plan.repeats):
        for load in plan.loads:
            window_s = plan.window_s(load)
            count = rng.poisson(load * capacity * window_s)
            requests = _requests(lengths, np.sort(rng.uniform(0, window_s, count)), rng)
            turn = repeat % len(targets)
            for target in (*targets[turn:], *targets[:turn]):
                windows[target.name, load].append(await run_window(target.url, target.model, requests, window_s))
        for name, long in (("quiet", 0), ("disturbed", LONG_PROMPT_TOKENS)):
            gaps[name].append(await p99_gap_s(ours.url, ours.model, rng, rows=8, tokens=96, long=long))
    return bursts, windows, gaps


def _requests(
    lengths: Sequence[tuple[int, int]], at_s: np.ndarray[tuple[int], np.dtype[np.float64]], rng: np.random.Generator
) -> list[LoadRequest]:
    drawn = rng.integers(len(lengths), size=len(at_s))
    return [
        LoadRequest(float(at), words(lengths[index][0], rng), lengths[index][1])
        for at, index in zip(at_s, drawn, strict=True)
    ]


def _burst_metrics(bursts: dict[str, list[float]]) -> list[Metric]:
    return [
        Metric.of_repeats(
            f"requests per second, {BURST} at once",
            bursts[OURS],
            "1/s",
            against=other,
            against_samples=rates,
            aim=Aim(round(THROUGHPUT_AIM * statistics.median(rates), 3), "at_least"),
            note=f"{len(bursts[OURS])} rounds",
        )
        for other, rates in bursts.items()
        if other != OURS
    ]


def _load_metrics(windows: Windows, others: Sequence[str], plan: LoadPlan) -> list[Metric]:
    found = []
    for load in plan.loads:
        for other in others or [""]:
            theirs, label = windows[other, load], f"at {load:g} of capacity"
            window_s = plan.window_s(load)
            rates = [_tokens_per_s(window, window_s) for window in theirs]
            ttfts = [_p95_ttft_s(window, window_s) for window in theirs]
            saturated = load > 1 and bool(rates)
            found += [
                Metric.of_repeats(
                    f"tokens per second {label}",
                    [_tokens_per_s(window, window_s) for window in windows[OURS, load]],
                    "tokens/s",
                    against=other,
                    against_samples=rates,
                    aim=Aim(round(THROUGHPUT_AIM * statistics.median(rates), 1), "at_least") if saturated else None,
                ),
                Metric.of_repeats(
                    f"p95 time to first token {label}",
                    [_p95_ttft_s(window, window_s) for window in windows[OURS, load]],
                    "s",
                    against=other,
                    against_samples=ttfts,
                    aim=Aim(round(statistics.median(ttfts), 4)) if ttfts else None,
                    note="who still waited when the window closed counts with the time waited so far",
                ),
            ]
    return found


def _tokens_per_s(window: Sequence[Seen], window_s: float) -> float:
    """Tokens that arrived after the first third of the window."""
    start_s = window_s / 3
    return sum(each.sent_s + at >= start_s for each in window for at in each.token_s) / (window_s - start_s)


def _p95_ttft_s(window: Sequence[Seen], window_s: float) -> float:
    return float(np.percentile([each.ttft_s(window_s) for each in window], 95)) if window else 0.0


def _gap_metric(gaps: dict[str, list[float]]) -> Metric:
    return Metric.of_repeats(
        "p99 token gap of 8 answers while a 2,000-token prompt arrives",
        gaps["disturbed"],
        "s",
        against="without that prompt",
        against_samples=gaps["quiet"],
        aim=Aim(round(2 * statistics.median(gaps["quiet"]), 4)),
    )
