"""What the engine adds to its own kernels: its tokens per second beside a bare loop of decode runs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.result import Aim, Metric
from skyshore.domain.llm import LlmInput, Sampling, TokenChunk
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings

ENGINE_PROMPT_TOKENS: Final = 32
ENGINE_OUTPUT_TOKENS: Final = 128
"""Long enough that all sixteen answers stream together for most of their length."""
BARE_CONTEXT_TOKENS: Final = 64
BARE_STEPS: Final = 64
"""Where the engine's rows stand, on average, while all of them stream."""
KEPT_AIM: Final = 0.93
"""Of the bare loop's tokens per second."""


async def engine_metrics(folder: Path, repeats: int) -> list[Metric]:
    """Race engine and bare loop, both on one thread, alternating."""
    settings = LlmEngineSettings(folder, precision="int4", threads=1, context_tokens=512, kv_budget_bytes=1 << 30)
    bare = Decoder(folder / "model-int4.onnx", settings.slots + 1, 512, settings.threads)
    engine = await OnnxLlmEngine.start(settings)
    greedy = Sampling(max_tokens=ENGINE_OUTPUT_TOKENS, temperature=0, ignore_eos=True)
    drawn = replace(greedy, temperature=0.8, top_p=0.95, seed=1)
    loops, engines, samplings = [], [], []
    for _ in range(repeats):
        loops.append(await asyncio.to_thread(_bare_tokens_per_s, bare, settings.slots, BARE_STEPS))
        engines.append(await _engine_tokens_per_s(engine, settings.slots, greedy))
        samplings.append(await _engine_tokens_per_s(engine, settings.slots, drawn))
    await engine.close()
    label, aim = "bare kernel loop", Aim(round(KEPT_AIM * median(loops), 1), "at_least")
    return [
        Metric.of_repeats(
            "engine, batch 16, greedy", engines, "tokens/s", against=label, against_samples=loops, aim=aim
        ),
        Metric.of_repeats("engine, batch 16, top-p 0.95", samplings, "tokens/s", against=label, against_samples=loops),
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


def _task() -> Task:
    return Task("bench", TaskKind.LLM, deadline_s=600)
