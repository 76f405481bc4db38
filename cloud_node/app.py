"""Builds a cloud node: the engines of an edge node, and the sharded clip classifier."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import structlog

from cloud_node.settings import CloudNodeSettings
from skyshore.nodemodel.arms import video_arms
from skyshore.nodemodel.clips import CLIP_MODEL, CLIP_SIDE, clip_speeds
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.ports import ClipClassifierEngine
from skyshore.worker.energy import choose_meter
from skyshore.worker.engines import (
    EngineSet,
    StartEngines,
    model_names,
    read_profile,
    start_emulated,
    start_openai,
)
from skyshore.worker.executor import ServedClassifier
from skyshore.worker.measure import measure_classifier
from skyshore.worker.onnx_engines import start_onnx, test_picture
from skyshore.worker.settings import NodeSettings
from skyshore.worker.slowdown import SlowedClipClassifier

if TYPE_CHECKING:
    from cloud_node.classify.engine import RankClassifierEngine

log = structlog.get_logger()

CORES_FOR_TWO_RANKS = 4
"""With fewer cores, a second rank would compete with the node's other engines."""


async def start_local(settings: NodeSettings, stack: AsyncExitStack) -> EngineSet:
    """ONNX Runtime engines as on the edge, and a rank group if the clip classifier is named and torch is installed.

    Raises:
        NotFetched: a model is not in the cache.
        ProfileError: a name is no model, or without torch nothing is left to offer.
        NodeUnavailable: the ranks did not come up.
    """
    names = model_names(settings)
    others = [name for name in names if name != CLIP_MODEL]
    wanted = CLIP_MODEL in names
    if wanted and find_spec("torch") is None:
        log.warning(
            "video.classify is not offered: torch is not installed", model=CLIP_MODEL, install="skyshore[cloud]"
        )
        wanted = False
    if not wanted and not others:
        raise ProfileError(f"{CLIP_MODEL} needs torch; install skyshore[cloud] or name another model")
    engines = EngineSet("", (), choose_meter(settings), settings.idle_watts)
    if others:
        engines = await start_onnx(settings.model_copy(update={"models": ",".join(others)}), stack)
    return await _with_classifier(engines, cast(CloudNodeSettings, settings), stack) if wanted else engines


async def _with_classifier(engines: EngineSet, settings: CloudNodeSettings, stack: AsyncExitStack) -> EngineSet:
    ranks = await _start_ranks(settings)
    stack.push_async_callback(ranks.close)
    size = ranks.group.size
    bare = VideoSpeed(CLIP_MODEL, "", slots=size, queue=ranks.load().capacity - size, busy_watts=settings.busy_watts)
    profile = read_profile(settings)
    known = [speed for speed in profile.video if speed.model == CLIP_MODEL] if profile else []
    jpeg, *_ = test_picture(CLIP_SIDE)
    speeds = known or clip_speeds(await measure_classifier(ranks, bare, jpeg, CLIP_SIDE))
    log.info("speed", model=CLIP_MODEL, source=speeds[0].source, frame_s=round(speeds[0].frame_s, 4), ranks=size)
    engine: ClipClassifierEngine = ranks
    if settings.slowdown != 1:
        engine = SlowedClipClassifier(ranks, settings.slowdown, size)
    arms = video_arms(settings.id, [speed.slowed(settings.slowdown) for speed in speeds])
    name = f"{settings.rank_engine} on {size} rank{'s' if size > 1 else ''}"
    return replace(
        engines,
        name=f"{engines.name}, {name}" if engines.name else name,
        served=(*engines.served, *(ServedClassifier(arm, engine) for arm in arms)),
        meter=choose_meter(settings, ranks.ranks_cpu_s),
    )


async def _start_ranks(settings: CloudNodeSettings) -> RankClassifierEngine:
    from cloud_node.classify.engine import RankClassifierEngine  # noqa: PLC0415 - loads torch
    from cloud_node.classify.requests import EngineKind  # noqa: PLC0415 - loads torch
    from cloud_node.classify.service import ClassifierSettings  # noqa: PLC0415 - loads torch
    from cloud_node.dsp.group import GroupSettings  # noqa: PLC0415 - loads torch

    size = settings.ranks or (2 if (os.cpu_count() or 1) >= CORES_FOR_TWO_RANKS else 1)
    group = GroupSettings(size=size, stall_s=settings.rank_stall_s)
    return await RankClassifierEngine.start(group, ClassifierSettings(engine=EngineKind(settings.rank_engine)))


STARTERS: dict[str, StartEngines] = {"onnx": start_local, "emulated": start_emulated, "openai": start_openai}
"""By the word in the settings."""
