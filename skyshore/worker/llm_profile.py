"""Measures one precision of a language model on this machine: tokens per second, joules, perplexity."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyshore.engines.llm.decoder import Decoder
from skyshore.nodemodel.speed import LlmSpeed
from skyshore.ports import EnergyMeter

TEXT_FILE: Final = Path(__file__).parent / "texts" / "public_domain.txt"
TEXT_SOURCE: Final = (
    "openings of Carroll's Alice (1865), Melville's Moby-Dick (1851) and Austen's Pride and Prejudice (1813), from "
    "Lincoln's Gettysburg Address (1863) and the United States' Declaration of Independence (1776), all public domain"
)
WINDOW_TOKENS: Final = 256
DECODE_STEPS: Final = 8
REPEATS: Final = 3
CHUNK_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """One measured point: a prompt of `context` tokens, or decode steps of `batch` rows with `context` tokens each."""

    kind: str
    batch: int
    context: int
    run_s: float
    """Seconds of the whole prompt, or of one step; median of the repeats."""
    joules_per_token: float
    """Above idle; mean over the repeats."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of all rows together."""
        return (self.context if self.kind == "prefill" else self.batch) / self.run_s


@dataclass(frozen=True, slots=True)
class TextQuality:
    """How well a precision predicts the bundled text."""

    perplexity: float
    agreement: float
    """Share of positions where its most likely token equals that of the reference."""
    tokens: int


@dataclass(frozen=True, slots=True)
class PrecisionProfile:
    """All measurements of one precision."""

    model: str
    precision: str
    weight_bytes: int
    cells: tuple[SpeedPoint, ...]
    quality: TextQuality
    energy_source: str
    watts: float
    """Mean power above idle during the measurement."""
    kv_bytes_per_token: int
    """Bytes of keys and values of all layers."""

    @property
    def title(self) -> str:
        """`model:precision`, as arms are named."""
        return f"{self.model}:{self.precision}"


def measure(
    decoder: Decoder,
    batches: Sequence[int],
    contexts: Sequence[int],
    *,
    meter: EnergyMeter,
    idle_watts: float,
    on_cell: Callable[[], None] = lambda: None,
) -> tuple[tuple[SpeedPoint, ...], float]:
    """Measure prefill at every context and decode at every batch and context.

    Returns:
        The points, and the mean power above idle in watts. `on_cell` is called after every point.
    """
    cells: list[SpeedPoint] = []
    busy_s, joules = 0.0, 0.0

    def add(kind: str, batch: int, context: int, steps: int, work: Callable[[], None]) -> None:
        nonlocal busy_s, joules
        runs = [_metered(work, meter, idle_watts) for _ in range(REPEATS)]
        run_joules = sum(spent for _, spent in runs)
        tokens = REPEATS * (context if kind == "prefill" else batch * steps)
        cells.append(SpeedPoint(kind, batch, context, median(run_s for run_s, _ in runs) / steps, run_joules / tokens))
        busy_s, joules = busy_s + sum(run_s for run_s, _ in runs), joules + run_joules
        on_cell()

    for context in contexts:
        prompt = [(100 + 37 * place) % decoder.vocab for place in range(context)]
        add("prefill", 1, context, 1, partial(_prefill, decoder, prompt))
        for batch in batches:
            for row in range(1, batch):
                decoder.kv.copy(0, row, 0, context)
            _decode(decoder, batch, context)  # warm-up of this batch size
            add("decode", batch, context, DECODE_STEPS, partial(_decode, decoder, batch, context))
    return tuple(cells), joules / busy_s


def _prefill(decoder: Decoder, prompt: Sequence[int]) -> None:
    for start in range(0, len(prompt), CHUNK_TOKENS):
        decoder.extend(0, prompt[start : start + CHUNK_TOKENS], start)


def _decode(decoder: Decoder, batch: int, context: int) -> None:
    tokens = [5] * batch
    for step in range(DECODE_STEPS):
        tokens = decoder.decode(tokens, [context + step] * batch, context).greedy.tolist()


def _metered(work: Callable[[], None], meter: EnergyMeter, idle_watts: float) -> tuple[float, float]:
    """Run `work`; returns (seconds, joules above idle)."""
    before, start = meter.joules(), time.perf_counter()
    work()
    elapsed_s = time.perf_counter() - start
    return elapsed_s, max(0.0, meter.joules() - before - idle_watts * elapsed_s)


# ------------------------------------------------------------------------------------------------------ quality


def top_tokens_and_loss(decoder: Decoder, tokens: Sequence[int]) -> tuple[NDArray[np.int64], float, int]:
    """(most likely token at every position, summed loss in nats, counted positions) over windows of the text."""
    tops, loss, counted = [], 0.0, 0
    for start in range(0, len(tokens), WINDOW_TOKENS):
        window = list(tokens[start : start + WINDOW_TOKENS])
        logits = decoder.all_logits(window)
        tops.append(logits.argmax(axis=1))
        ahead = logits[:-1].astype(np.float64)
        ahead -= ahead.max(axis=1, keepdims=True)
        chosen = ahead[np.arange(len(window) - 1), window[1:]]
        loss += float((np.log(np.exp(ahead).sum(axis=1)) - chosen).sum())
        counted += len(window) - 1
    return np.concatenate(tops), loss, counted


def text_quality(decoder: Decoder, tokens: Sequence[int], reference_tops: NDArray[np.int64]) -> TextQuality:
    """Perplexity on `tokens`, and agreement with the most likely tokens of the reference."""
    tops, loss, counted = top_tokens_and_loss(decoder, tokens)
    return TextQuality(float(np.exp(loss / counted)), float((tops == reference_tops).mean()), counted)


# ---------------------------------------------------------------------------------------------------- node profile


def to_speed(
    found: PrecisionProfile, base_quality: float, *, slots: int, kv_tokens: int, context_tokens: int, source: str
) -> LlmSpeed:
    """Fit the linear model of the iteration time, which nodes, scheduler and simulator use, to the measured points.

    The quality is `base_quality`, that of the model in full precision, times the agreement.
    """
    decodes = [cell for cell in found.cells if cell.kind == "decode"]
    rows = np.array([cell.batch for cell in decodes], float)
    times = np.array([cell.run_s for cell in decodes])
    # Relative errors: a step of one row has the same weight as one of sixteen.
    design = np.stack([np.ones_like(rows), rows], axis=1) / times[:, None]
    fixed_s, row_s = np.linalg.lstsq(design, np.ones_like(times), rcond=None)[0]
    row_s = float(max(row_s, 0.0))
    fixed_s = float(max(fixed_s, 0.0)) if row_s else float(times.mean())
    prefills = [cell for cell in found.cells if cell.kind == "prefill"]
    token_s = [
        max(cell.run_s - fixed_s * -(-cell.context // CHUNK_TOKENS), cell.run_s * 0.1) / cell.context
        for cell in prefills
    ]
    return LlmSpeed(
        model=found.title,
        source=source,
        quality=round(base_quality * found.quality.agreement, 3),
        iteration_s=fixed_s,
        prefill_token_s=float(median(token_s)),
        row_s=row_s,
        slots=slots,
        kv_tokens=kv_tokens,
        context_tokens=context_tokens,
        chunk_tokens=CHUNK_TOKENS,
        busy_watts=found.watts,
    )
