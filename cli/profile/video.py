"""`skyshore profile video`: time, bytes, joules and quality of every video arm on this machine."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.options import AsJson
from cli.profile.inputs import existing_profile, whole_numbers
from cli.render import say, show_table
from cli.up import cached_models
from skyshore.catalogue.errors import NotFetched, UnknownEntry
from skyshore.catalogue.store import clip as catalogue_clip
from skyshore.domain.errors import InvalidTask, NotFound
from skyshore.nodemodel.detectors import VISION_SHAPES
from skyshore.nodemodel.document import profile_to_document
from skyshore.nodemodel.frontier import pareto_frontier
from skyshore.nodemodel.speed import NodeProfile, VideoSpeed
from skyshore.report.tables import Table
from skyshore.runtime import logs
from skyshore.worker.energy import choose_meter
from skyshore.worker.onnx_engines import QUEUE, start_video
from skyshore.worker.settings import NodeSettings
from skyshore.worker.video_profile import (
    Judge,
    TrialClip,
    agreement_with,
    feasible_encodings,
    profile_model,
    read_clip,
    synthetic_clip,
)
from skyshore.workload.annotations import Annotations, read_annotations


@dataclass(frozen=True, slots=True)
class VideoRun:
    """Options of one run."""

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    jpeg: tuple[int, ...]
    crf: tuple[int, ...]
    strides: tuple[int, ...]
    min_score: float
    threads: int


def video(
    source: Annotated[
        str, typer.Argument(metavar="[CLIP]", help="File or clip of the catalogue (default: a synthetic street).")
    ] = "",
    *,
    truth: Annotated[Path | None, typer.Option(help="Ground truth: MOT text or UA-DETRAC XML.")] = None,
    models: Annotated[str, typer.Option(help="Detectors, separated by commas (default: those in the cache).")] = "",
    sizes: Annotated[
        str, typer.Option(help="Longer side of the frames that are sent, in pixels; 0 keeps the size of the clip.")
    ] = "0,416,256",
    jpeg: Annotated[str, typer.Option(help="JPEG qualities, 1 to 100.")] = "85,50,20",
    crf: Annotated[str, typer.Option(help="H.264 rate factors, 0 to 51; empty for no H.264.")] = "23,33",
    strides: Annotated[str, typer.Option(help="Use every n-th frame.")] = "1,2,4",
    frames: Annotated[int, typer.Option(min=8, max=1000, help="Number of frames of the clip.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="Engine threads, as on the node.")] = 1,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Score threshold for F1.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic street.")] = 0,
    frontier_only: Annotated[bool, typer.Option(help="Write only the arms on the Pareto frontier.")] = False,
    out: Annotated[Path, typer.Option(help="Node profile to write; its language models are kept.")] = Path(
        "node-profile.json"
    ),
    as_json: AsJson = False,
) -> None:
    """Measure every model, size, encoding and stride on a clip; show the Pareto frontier of quality, bytes and time."""
    logs.configure("profile", "warning", as_json=False)
    run = VideoRun(
        models=_models(models),
        sizes=whole_numbers("sizes", sizes),
        jpeg=whole_numbers("jpeg", jpeg),
        crf=whole_numbers("crf", crf),
        strides=whole_numbers("strides", strides),
        min_score=min_score,
        threads=threads,
    )
    clip, annotations = _trial(source, truth, frames, seed)
    settings = NodeSettings(engine="onnx", id="profile", threads=threads)
    speeds = asyncio.run(_measure(clip, annotations, run, settings, Console(stderr=True)))
    best = frontier(speeds)
    kept = tuple(speed for speed, is_best in zip(speeds, best, strict=True) if is_best or not frontier_only)
    profile = _merged(out, clip, settings, kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(profile_to_document(profile), indent=1), encoding="utf-8")
    if as_json:
        arms = [asdict(speed) | {"frontier": bool(is_best)} for speed, is_best in zip(speeds, best, strict=True)]
        print(json.dumps({"clip": clip.name, "fps": clip.fps, "profile": str(out), "arms": arms}, indent=1))
        return
    show_table(Console(), arm_table(speeds, best, clip.fps))
    say(Console(stderr=True), f"written to {out}; a node reads it from SKYSHORE_NODE_PROFILE")


def _trial(source: str, truth: Path | None, frames: int, seed: int) -> tuple[TrialClip, Annotations | None]:
    """The clip and its ground truth, if there is one; without a source, a synthetic street."""
    if source:
        return read_clip(_clip_path(source), frames), _annotations(truth)
    if truth is not None:
        raise InvalidTask("--truth needs a clip", param="truth")
    return synthetic_clip(frames, seed)


def frontier(speeds: Sequence[VideoSpeed]) -> NDArray[np.bool_]:
    """For each arm, whether it is on the Pareto frontier of quality, bytes and time per frame of the clip."""
    return pareto_frontier(
        [(-s.quality, s.bytes_per_frame / s.frame_stride, s.frame_s / s.frame_stride) for s in speeds]
    )


def arm_table(speeds: Sequence[VideoSpeed], best: Sequence[bool] | NDArray[np.bool_], fps: float) -> Table:
    """One row per arm; within a model, from most to fewest bytes per second."""
    order = sorted(range(len(speeds)), key=lambda i: (speeds[i].model, -_rate(speeds[i], fps)))
    rows = tuple(_row(speeds[i], bool(best[i]), fps) for i in order)
    rates = [_rate(speed, fps) for speed in speeds]
    qualities = [speed.quality for speed in speeds]
    first = speeds[0]
    note = (
        f"★ on the frontier of F1, bytes and time. Times, bytes and joules are per processed frame; {first.source}; "
        f"quality: {first.quality_source}; joules above idle: {first.energy_source}. "
        f"Bytes differ by {max(rates) / max(min(rates), 1e-9):.0f}×; F1 {min(qualities):.2f} to {max(qualities):.2f}."
    )
    columns = ("model", "size", "codec", "every", "ms p50", "p95", "CPU ms", "kB", "kB/s", "F1", "mAP50", "J", "")
    return Table("Arms", columns, rows, note)


def _row(speed: VideoSpeed, is_best: bool, fps: float) -> tuple[str, ...]:
    return (
        speed.model,
        str(speed.input_size) if speed.input_size else "source",
        f"{speed.codec} {speed.encode_quality}",
        str(speed.frame_stride),
        f"{speed.frame_s * 1e3:.1f}",
        f"{speed.frame_p95_s * 1e3:.1f}",
        f"{speed.cpu_s * 1e3:.1f}",
        f"{speed.bytes_per_frame / 1e3:.1f}",
        f"{_rate(speed, fps) / 1e3:.1f}",
        f"{speed.quality:.3f}",
        f"{speed.map50:.3f}",
        f"{speed.joules_per_frame:.3f}",
        "★" if is_best else "",
    )


def _rate(speed: VideoSpeed, fps: float) -> float:
    return speed.bytes_per_frame * fps / speed.frame_stride


async def _measure(
    clip: TrialClip, annotations: Annotations | None, run: VideoRun, settings: NodeSettings, console: Console
) -> list[VideoSpeed]:
    encodings = feasible_encodings(clip, run.sizes, run.jpeg, run.crf, run.strides)
    meter = choose_meter(settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    speeds: list[VideoSpeed] = []
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("reference", total=len(encodings) * len(run.models))
        annotations = annotations or await _largest_model(clip, run)
        judge = Judge(annotations, tuple(frame.index for frame in clip.frames), run.min_score)

        def step(model: str) -> None:
            bar.update(shown, advance=1, description=model)

        for name in run.models:
            bar.update(shown, description=name)
            engine = await asyncio.to_thread(start_video, name, run.threads)
            bare = VideoSpeed(name, "", slots=run.threads, queue=QUEUE)
            try:
                speeds += await profile_model(
                    engine, clip, encodings, judge, bare=bare, meter=meter, idle_watts=settings.idle_watts, on_step=step
                )
            finally:
                await engine.close()
    return speeds


async def _largest_model(clip: TrialClip, run: VideoRun) -> Annotations:
    name = max(_cached_detectors(), key=lambda model: VISION_SHAPES[model].flops_per_frame)
    engine = await asyncio.to_thread(start_video, name, run.threads)
    try:
        return await agreement_with(engine, clip, run.min_score)
    finally:
        await engine.close()


def _models(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip()) or tuple(_cached_detectors())
    for name in names:
        if name not in VISION_SHAPES:
            raise NotFound(f"no detector '{name}'; there are {', '.join(VISION_SHAPES)}", param="models")
    return names


def _cached_detectors() -> list[str]:
    names = sorted(cached_models() & set(VISION_SHAPES))
    if not names:
        raise NotFound("no detector is in the cache; run `skyshore models fetch nanodet`", param="models")
    return names


def _clip_path(given: str) -> Path:
    if Path(given).is_file():
        return Path(given)
    try:
        return catalogue_clip(given)
    except UnknownEntry:
        raise NotFound(f"no file '{given}', and no clip of this name in `skyshore models list`", param="clip") from None
    except NotFetched as error:
        raise NotFound(error.message, param="clip") from None


def _annotations(path: Path | None) -> Annotations | None:
    if path is None:
        return None
    try:
        return read_annotations(path.name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"cannot read {path}: {error}", param="truth") from error


def _merged(out: Path, clip: TrialClip, settings: NodeSettings, speeds: tuple[VideoSpeed, ...]) -> NodeProfile:
    before = existing_profile(out)
    name = f"{platform.node()}, {settings.threads} threads"
    source = f"measured:`skyshore profile video` on {clip.name}"
    return NodeProfile(name, source, settings.idle_watts, before.llm if before else (), speeds)
