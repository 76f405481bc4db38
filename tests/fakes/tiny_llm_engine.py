"""An engine over a tiny random Llama model, with requests for it, for tests of the language model engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyshore.catalogue.llama.build import build
from skyshore.domain.llm import LlmInput, Sampling, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

GREEDY = Sampling(max_tokens=12, temperature=0, ignore_eos=True)


def build_tiny_model(folder: Path) -> Path:
    """Write the model to a folder in fp32 and int4. Returns the folder."""
    source = write_tiny_gguf(
        folder / "model.gguf", TinyLlama(hidden=128, ffn=192, heads=4, kv_heads=1, head_dim=64, seed=3)
    )
    for precision in ("fp32", "int4"):
        build(source, folder, precision)
    return folder


def small(model_dir: Path) -> LlmEngineSettings:
    return LlmEngineSettings(
        model_dir, precision="fp32", slots=4, queue_limit=100, context_tokens=256, prefill_chunk_tokens=16
    )


def task(service_class: str = "standard", deadline_s: float = 60.0) -> Task:
    return Task("t", TaskKind.LLM, service_class=service_class, deadline_s=deadline_s)


def ids(*tokens: int, sampling: Sampling = GREEDY) -> LlmInput:
    return LlmInput(prompt_token_ids=tokens, sampling=sampling)


@dataclass
class Collected:
    chunks: list[TokenChunk]
    outcome: WorkerOutcome

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        return sum(chunk.token_count for chunk in self.chunks)


async def answer(engine: OnnxLlmEngine, request: LlmInput, of: Task | None = None) -> Collected:
    items = [item async for item in engine.generate(of or task(), request)]
    assert isinstance(items[-1], WorkerOutcome), "the outcome comes last"
    chunks = [item for item in items if isinstance(item, TokenChunk)]
    assert len(chunks) == len(items) - 1, "and only once"
    return Collected(chunks, items[-1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110 - the engine's load has no event to wait for, by design
            await asyncio.sleep(0.002)


@contextmanager
def held(engine: OnnxLlmEngine) -> Iterator[threading.Event]:
    """Stop every step of the engine at its start until the block ends. The event is set when a step has started."""
    decoder, go, began = engine._steps._decoder, threading.Event(), threading.Event()
    extend, decode = decoder.extend, decoder.decode

    def wait_and(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (began.set(), go.wait(100), step(*given, **named))[2]

    decoder.extend, decoder.decode = wait_and(extend), wait_and(decode)  # type: ignore[method-assign]
    try:
        yield began
    finally:
        go.set()
        decoder.extend, decoder.decode = extend, decode  # type: ignore[method-assign]


async def until_idle(engine: OnnxLlmEngine) -> None:
    await until(lambda: engine.load().running == engine.load().queued == 0)
