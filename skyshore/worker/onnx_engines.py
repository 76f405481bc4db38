"""Starts the ONNX Runtime engines. Imports their libraries late, so that an emulated node needs none of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from skyshore.catalogue.entry import Kind
from skyshore.catalogue.store import kind_of, ready
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.detectors import VISION_SHAPES
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.hardware import jpeg_bytes
from skyshore.nodemodel.quality import llm_quality, vision_quality
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.ports import LlmEngine, VideoEngine
from skyshore.worker.energy import choose_meter
from skyshore.worker.engines import EngineSet, model_names, read_profile
from skyshore.worker.executor import ServedArm, ServedDetector, ServedLlm
from skyshore.worker.measure import measure_llm, measure_video
from skyshore.worker.settings import NodeSettings
from skyshore.worker.slowdown import SlowedLlmEngine, SlowedVideoEngine

if TYPE_CHECKING:
    from skyshore.engines.llm.engine import OnnxLlmEngine
    from skyshore.engines.video.engine import OnnxVideoEngine

log = structlog.get_logger()

DEFAULT_PRECISION = "int4"
CONTEXT_TOKENS = 2048
"""Tokens of the longest prompt plus answer."""
QUEUE = 12


async def start_onnx(settings: NodeSettings, stack: AsyncExitStack) -> EngineSet:
    """ONNX Runtime engines for all models of the settings. Speeds come from the profile file, or are measured now.

    Raises:
        NotFetched: a model is not in the cache. The message names the command that fetches it.
        ProfileError: a name is neither a language model nor a detector.
    """
    names = model_names(settings)
    for name in names:
        ready(name.partition(":")[0])  # report a missing model before the slow part
    profile = read_profile(settings)
    served: list[ServedArm] = []
    for name in names:
        match kind_of(name.partition(":")[0]):
            case Kind.LLM:
                served.append(await _serve_llm(name, profile, settings, stack))
            case Kind.DETECTOR:
                served += await _serve_detector(name, profile, settings, stack)
            case other:
                raise ProfileError(f"SKYSHORE_NODE_MODELS: {name} is a {other}, not a model a node can run")
    slow = f", emulated {settings.slowdown:g}x slower" if settings.slowdown != 1 else ""
    return EngineSet(f"onnx{slow}", tuple(served), choose_meter(settings), settings.idle_watts)


async def _serve_llm(
    name: str, profile: NodeProfile | None, settings: NodeSettings, stack: AsyncExitStack
) -> ServedLlm:
    base, _, precision = name.partition(":")
    name = f"{base}:{precision or DEFAULT_PRECISION}"
    engine = await _start_llm(base, precision or DEFAULT_PRECISION, settings)
    stack.push_async_callback(engine.close)
    served: LlmEngine = engine
    known = next((speed for speed in profile.llm if speed.model == name), None) if profile else None
    bare = LlmSpeed(name, "", quality=llm_quality(name) or 0.0, busy_watts=settings.busy_watts)
    # The profile may be of another day: it gives the speed. The engine gives the limits of now.
    sized = replace(
        known or bare, slots=settings.slots, kv_tokens=engine.kv_tokens, context_tokens=engine.context_tokens
    )
    speed = sized if known else await measure_llm(engine, sized)
    _log_speed(speed)
    if settings.slowdown != 1:
        served = SlowedLlmEngine(engine, settings.slowdown, settings.slots)
    return ServedLlm(llm_arm(settings.id, speed.slowed(settings.slowdown)), served)


async def _serve_detector(
    name: str, profile: NodeProfile | None, settings: NodeSettings, stack: AsyncExitStack
) -> list[ServedDetector]:
    engine: VideoEngine = await asyncio.to_thread(start_video, name, settings.threads)
    stack.push_async_callback(engine.close)
    known = [speed for speed in profile.video if speed.model == name] if profile else []
    size = VISION_SHAPES[name].input_size
    bare = VideoSpeed(
        model=name,
        source="",
        quality=vision_quality(name, 85) or 0.0,
        slots=settings.threads,
        queue=QUEUE,
        input_size=size,
        bytes_per_frame=jpeg_bytes(size, 85),
        busy_watts=settings.busy_watts,
    )
    speeds = known or [await measure_video(engine, bare, *test_picture(size))]
    for speed in speeds:
        _log_speed(speed)
    if settings.slowdown != 1:
        engine = SlowedVideoEngine(engine, settings.slowdown, settings.threads)
    slowed = [speed.slowed(settings.slowdown) for speed in speeds]
    return [ServedDetector(arm, engine) for arm in video_arms(settings.id, slowed)]


async def _start_llm(model: str, precision: str, settings: NodeSettings) -> OnnxLlmEngine:
    from skyshore.engines.llm.engine import OnnxLlmEngine  # noqa: PLC0415 - see the module
    from skyshore.engines.llm.settings import LlmEngineSettings  # noqa: PLC0415 - see the module

    return await OnnxLlmEngine.start(
        LlmEngineSettings(
            model_dir=ready(model),
            precision=precision,
            model=model,
            threads=settings.threads,
            slots=settings.slots,
            context_tokens=CONTEXT_TOKENS,
        )
    )


def start_video(model: str, threads: int) -> OnnxVideoEngine:
    """A detector of the catalogue with `threads` threads. Blocks for about a second."""
    from skyshore.adapters.onnx_session import SessionOptions  # noqa: PLC0415 - see the module
    from skyshore.engines.video.engine import OnnxVideoEngine, VideoEngineSettings  # noqa: PLC0415 - see the module

    session = SessionOptions(intra_op_threads=threads)
    # One segment per thread: with more, segments share the cores and the speed of the arm would be wrong.
    chosen = VideoEngineSettings(slots=threads, queue=QUEUE, decode_threads=threads, session=session)
    return OnnxVideoEngine(ready(model), chosen)


def test_picture(size: int) -> tuple[bytes, int, int]:
    """A JPEG of random shapes with the longer side `size`, its width and its height in pixels."""
    import cv2  # noqa: PLC0415 - see the module
    import numpy as np  # noqa: PLC0415 - see the module

    height, width = size * 3 // 4, size
    picture = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return jpeg.tobytes(), width, height


def _log_speed(speed: LlmSpeed | VideoSpeed) -> None:
    if isinstance(speed, LlmSpeed):
        log.info(
            "speed",
            model=speed.model,
            source=speed.source,
            prefill_tokens_per_s=round(speed.prefill_tokens_per_s),
            decode_tokens_per_s=round(speed.decode_tokens_per_s, 1),
        )
    else:
        log.info("speed", model=speed.model, source=speed.source, frame_s=round(speed.frame_s, 4))
