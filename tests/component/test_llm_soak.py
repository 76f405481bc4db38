"""A hundred thousand requests through one engine: nothing grows. Minutes long, so only when asked for.

`SKYSHORE_SOAK=100000 pytest tests/component/test_llm_soak.py`; `SKYSHORE_SOAK_OUT=FILE` keeps the figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from skyshore.catalogue.llama.build import build
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

REQUESTS = int(os.environ.get("SKYSHORE_SOAK", "0"))
READERS = 24
KV_TOKENS = 1024
MOST_GROWTH_MB = 8.0

pytestmark = [
    pytest.mark.skipif(not REQUESTS, reason="takes minutes; set SKYSHORE_SOAK=100000 to run it"),
    pytest.mark.timeout(3600),
]


def resident_mb() -> float:
    """Now, not at the most: a peak would hide what is given back."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def summary(samples: list[tuple[int, float]], elapsed_s: float, most_kv: float) -> dict[str, float]:
    """What is kept of a run; memory between its 10 and 30 % marks beside that of its last fifth."""
    early = float(np.median([mb for done, mb in samples if REQUESTS * 0.1 <= done <= REQUESTS * 0.3]))
    late = float(np.median([mb for done, mb in samples if done >= REQUESTS * 0.8]))
    return {
        "requests": REQUESTS,
        "seconds": round(elapsed_s, 1),
        "resident_mb_early": round(early, 1),
        "resident_mb_late": round(late, 1),
        "growth_mb": round(late - early, 2),
        "most_kv_used": round(most_kv, 3),
    }


async def test_nothing_grows_over_very_many_requests(tmp_path: Path) -> None:
    """Ordinary answers, cancelled ones, shared prefixes and refused ones in turn, under a budget that preempts."""
    source = write_tiny_gguf(tmp_path / "m.gguf", TinyLlama(hidden=64, ffn=128, heads=2, kv_heads=1, head_dim=32))
    build(source, tmp_path, "int4")
    bytes_per_token = 2 * 2 * 32 * 4
    engine = await OnnxLlmEngine.start(
        LlmEngineSettings(
            *(tmp_path, "int4"),
            slots=8,
            context_tokens=256,
            kv_budget_bytes=KV_TOKENS * bytes_per_token,
            prefix_slots=2,
        )
    )
    rng = np.random.default_rng(0)
    left, most_kv = REQUESTS, 0.0
    samples: list[tuple[int, float]] = []

    async def ask(number: int, kind: float, length: int) -> None:
        prompt = tuple((number * 7 + place) % 280 for place in range(length))
        chosen = Sampling(max_tokens=1 + number % 6, temperature=0.5 * (number % 2), ignore_eos=True)
        stream = engine.generate(
            Task("t", TaskKind.LLM, deadline_s=60), LlmInput(prompt_token_ids=prompt, sampling=chosen)
        )
        done = False
        async for item in stream:
            done = isinstance(item, WorkerOutcome)
            if kind < 0.1:
                break
        await stream.aclose()
        assert done or kind < 0.1

    async def read() -> None:
        nonlocal left, most_kv
        while left > 0:
            left -= 1
            await ask(left, rng.random(), int(rng.integers(1, 90)))
            most_kv = max(most_kv, engine.load().kv_used)
            if left % max(1, REQUESTS // 50) == 0:
                samples.append((REQUESTS - left, resident_mb()))

    start = time.perf_counter()
    await asyncio.gather(*(read() for _ in range(READERS)))
    elapsed_s = time.perf_counter() - start
    figures = summary(samples, elapsed_s, most_kv)
    print(figures)
    if out := os.environ.get("SKYSHORE_SOAK_OUT"):
        Path(out).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")  # noqa: ASYNC240 - all is over
    assert figures["growth_mb"] < MOST_GROWTH_MB
    assert 0 < most_kv <= 1.0
    assert engine._streams == {}
    assert engine._steps._generations == {}
    await engine.close()
