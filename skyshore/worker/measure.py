"""Measures the speed of a node with a few inferences at start, for the arms of a node without a profile file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from statistics import median

from skyshore.domain.errors import Internal
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.nodemodel.clips import CLIP_FRAMES
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.ports import ClipClassifierEngine, LlmEngine, VideoEngine

SOURCE = "measured:self at start"
REPEATS = 3
PROMPT_WORDS = 96
TOKENS = 12
ROWS = 4
FRAMES = 3
DEADLINE_S = 300.0


async def measure_llm(engine: LlmEngine, speed: LlmSpeed) -> LlmSpeed:
    """Fill in the times of `speed`: the median of three runs, alone and in a small batch, after a warm-up."""
    await _answer(engine, 8)
    alone = [await _answer(engine, 8) for _ in range(REPEATS)]
    one_s = median(map(_token_s, alone))
    rows = min(ROWS, speed.slots)
    row_s = 0.0
    if rows > 1:
        together = await asyncio.gather(*(_answer(engine, 8) for _ in range(rows)))
        row_s = max(0.0, (median(map(_token_s, together)) - one_s) / (rows - 1))
    iteration_s = max(0.0, one_s - row_s)
    # Different words each time, so that the prefix cache has no match.
    long = [await _answer(engine, PROMPT_WORDS, salt) for salt in range(REPEATS)]
    prefill_token_s = median(
        max(o.prefill_s - iteration_s, o.prefill_s * 0.1) / max(1, o.prompt_tokens - o.cached_tokens) for o in long
    )
    return replace(speed, source=SOURCE, iteration_s=iteration_s, prefill_token_s=prefill_token_s, row_s=row_s)


async def measure_video(engine: VideoEngine, speed: VideoSpeed, jpeg: bytes, width: int, height: int) -> VideoSpeed:
    """Fill in the frame time of `speed`: the median of three short segments after a warm-up."""
    outcomes = [await _segment(engine, jpeg, width, height) for _ in range(REPEATS + 1)]
    frame_s = median((o.prefill_s + o.compute_s) / max(1, o.frames) for o in outcomes[1:])
    return replace(speed, source=SOURCE, frame_s=frame_s)


async def measure_classifier(engine: ClipClassifierEngine, speed: VideoSpeed, jpeg: bytes, side: int) -> VideoSpeed:
    """Fill in the frame time of `speed`: the median of three clips of one picture after a warm-up."""
    frames = [EncodedFrame(index, index / 4, jpeg) for index in range(CLIP_FRAMES)]
    task = Task("self-measurement", TaskKind.VIDEO_CLASSIFY, deadline_s=DEADLINE_S)
    outcomes = []
    for _ in range(REPEATS + 1):
        info = SegmentInfo(0, CLIP_FRAMES, side, side)
        outcomes.append(_outcome(engine.model, [event async for event in engine.classify(task, info, _each(frames))]))
    frame_s = median((o.prefill_s + o.compute_s) / max(1, o.frames) for o in outcomes[1:])
    return replace(speed, source=SOURCE, frame_s=frame_s)


async def _each(frames: Sequence[EncodedFrame]) -> AsyncIterator[EncodedFrame]:
    for frame in frames:
        yield frame


def _token_s(outcome: WorkerOutcome) -> float:
    return outcome.compute_s / max(1, outcome.output_tokens - 1)


async def _answer(engine: LlmEngine, words: int, salt: int = 0) -> WorkerOutcome:
    task = Task("self-measurement", TaskKind.LLM, deadline_s=DEADLINE_S)
    prompt = " ".join(f"{chr(97 + (salt + i) % 26)}{i}" for i in range(words))
    sampling = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    events = [event async for event in engine.generate(task, LlmInput(prompt=prompt, sampling=sampling))]
    return _outcome(engine.model, events)


async def _segment(engine: VideoEngine, jpeg: bytes, width: int, height: int) -> WorkerOutcome:
    frames = [EncodedFrame(index, index / 25, jpeg) for index in range(FRAMES)]
    task = Task("self-measurement", TaskKind.VIDEO_DETECT, deadline_s=DEADLINE_S)
    info = SegmentInfo(0, FRAMES, width, height)
    events = [event async for event in engine.detect(task, info, _each(frames))]
    return _outcome(engine.model, events)


def _outcome(model: str, events: Sequence[object]) -> WorkerOutcome:
    if events and isinstance(events[-1], WorkerOutcome):
        return events[-1]
    raise Internal(f"{model} ended without an outcome")
