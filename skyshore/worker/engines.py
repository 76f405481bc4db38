"""Starts emulated engines and clients of upstream servers, and makes their arms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from skyshore.adapters.energy_modelled import ModelledMeter
from skyshore.domain.task import TaskKind
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.engines.emulated.video import EmulatedVideoEngine
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.document import ProfileError, profile_from_document
from skyshore.nodemodel.hardware import HARDWARE, INSTANT, modelled_profile
from skyshore.nodemodel.quality import llm_quality
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile
from skyshore.ports import EnergyMeter
from skyshore.worker.energy import choose_meter
from skyshore.worker.executor import ServedArm, ServedClassifier, ServedDetector, ServedLlm
from skyshore.worker.measure import measure_llm
from skyshore.worker.settings import NodeSettings

log = structlog.get_logger()

DEFAULT_HARDWARE = "xeon-edge"
DRIFT_EVERY_S = 0.1
UPSTREAM_QUALITY = 0.5
"""Assumed quality of a model without a known figure. A profile file can set a better one."""


@dataclass(frozen=True, slots=True)
class EngineSet:
    """The engines of a node with their arms. The exit stack that started the engines closes them."""

    name: str
    """For `Node.engine`; contains the word `emulated` if any figure is not measured on this machine."""
    served: tuple[ServedArm, ...]
    meter: EnergyMeter
    idle_watts: float


StartEngines = Callable[[NodeSettings, AsyncExitStack], Awaitable[EngineSet]]


def read_profile(settings: NodeSettings) -> NodeProfile | None:
    """The profile of `settings.profile`, if that is a file.

    Raises:
        ProfileError: the file cannot be read or used.
    """
    if not settings.profile or settings.profile in HARDWARE or settings.profile == INSTANT:
        return None
    try:
        text = Path(settings.profile).read_text(encoding="utf-8")
        return profile_from_document(json.loads(text))
    except (OSError, ValueError) as error:
        known = ", ".join([INSTANT, *HARDWARE])
        raise ProfileError(
            f"SKYSHORE_NODE_PROFILE={settings.profile}: {error}; give a profile file, or one of {known}"
        ) from error


async def start_emulated(settings: NodeSettings, stack: AsyncExitStack) -> EngineSet:
    """Engines that take the modelled time and compute nothing. Their energy comes from the same model."""
    hardware = settings.profile or DEFAULT_HARDWARE
    profile = read_profile(settings) or modelled_profile(hardware, model_names(settings))
    profile = profile.slowed(settings.slowdown)
    served: list[ServedArm] = []
    engines: list[EmulatedLlmEngine | EmulatedVideoEngine] = []
    for llm in profile.llm:
        engine = await EmulatedLlmEngine.start(llm, time_scale=settings.time_scale)
        stack.push_async_callback(engine.close)
        engines.append(engine)
        served.append(ServedLlm(llm_arm(settings.id, llm), engine))
    arms = video_arms(settings.id, profile.video)
    for video in {speed.model: speed for speed in profile.video}.values():
        own = [arm for arm in arms if arm.model == video.model]
        frame_s = {arm.arm_id: arm.frame_s for arm in own}
        vision = EmulatedVideoEngine(video, frame_s=frame_s, time_scale=settings.time_scale)
        engines.append(vision)
        serve = ServedClassifier if video.kind is TaskKind.VIDEO_CLASSIFY else ServedDetector
        served += [serve(arm, vision) for arm in own]
    if settings.drift_file:
        drifting = asyncio.create_task(follow_drift(Path(settings.drift_file), engines), name="drift")
        stack.callback(drifting.cancel)
    meter = ModelledMeter(
        "nodemodel",
        profile.idle_watts,
        lambda: sum(engine.busy_joules() for engine in engines),
        time_scale=settings.time_scale,
    )
    return EngineSet(_label("emulated", profile, settings), tuple(served), meter, profile.idle_watts)


async def follow_drift(file: Path, engines: Sequence[EmulatedLlmEngine | EmulatedVideoEngine]) -> None:
    """Set the slowdown of the engines to the factor in `file` at every change. Runs until cancelled. No file: 1."""
    known = 1.0
    while True:
        slowdown = await asyncio.to_thread(_read_drift, file)
        if slowdown != known:
            known = slowdown
            log.warning("drift", slowdown=slowdown)
            for engine in engines:
                engine.drift(slowdown)
        await asyncio.sleep(DRIFT_EVERY_S)


def _read_drift(file: Path) -> float:
    try:
        return max(1.0, float(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return 1.0


async def start_openai(settings: NodeSettings, stack: AsyncExitStack) -> EngineSet:
    """A client of the upstream server for every model. The server must know the models by these names."""
    from skyshore.engines.openai.engine import OpenAiLlmEngine  # noqa: PLC0415 - the only engine that needs httpx

    profile, served = read_profile(settings), []
    for name in model_names(settings):
        engine = OpenAiLlmEngine(name, settings.upstream_url, key=settings.upstream_key, slots=settings.slots)
        stack.push_async_callback(engine.close)
        await engine.check()
        speed = _known_llm(profile, name)
        if speed is None:
            bare = LlmSpeed(name, "", llm_quality(name) or UPSTREAM_QUALITY, slots=settings.slots)
            speed = await measure_llm(engine, bare)
        served.append(ServedLlm(llm_arm(settings.id, speed), engine))
    return EngineSet("openai", tuple(served), choose_meter(settings), settings.idle_watts)


def model_names(settings: NodeSettings) -> list[str]:
    """Names of the models to serve.

    Raises:
        ProfileError: the setting is empty.
    """
    names = [name.strip() for name in settings.models.split(",") if name.strip()]
    if not names:
        raise ProfileError("SKYSHORE_NODE_MODELS names no model; for example smollm2-135m:int4,ssd-mobilenet")
    return names


def _known_llm(profile: NodeProfile | None, name: str) -> LlmSpeed | None:
    if profile is None:
        return None
    return next((speed for speed in profile.llm if speed.model == name), None)


def _label(name: str, profile: NodeProfile, settings: NodeSettings) -> str:
    scale = f", time x{settings.time_scale:g}" if settings.time_scale != 1 else ""
    return f"{name} ({profile.name}{f', {settings.slowdown:g}x slower' if settings.slowdown != 1 else ''}{scale})"
