"""The video worker beside the bare ONNX Runtime loop, and the whole system beside the worker.

Peer: `InferenceSession.run` on frames decoded, scaled and laid out beforehand, in the same process, with the same
threads, half of them before the worker's turn and half after it, so that a drift of the machine's speed hits both sides
alike. The worker gets the clip as the gateway sends it, JPEG of the source's size, and decodes, scales, infers,
post-processes and emits. End to end: an upload to a gateway process with a node process
behind it, until the result is read; their link is the loopback, not shaped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from benchmarks.gateway_targets import CHAT, Processes, processes, start_own_system
from benchmarks.result import Aim, BenchResult, Metric
from skyshore.adapters.onnx_session import OnnxSession, SessionOptions
from skyshore.adapters.video_draw import Mp4Writer
from skyshore.adapters.video_encode import encode_jpeg
from skyshore.adapters.video_source import ClipFrame, frames
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import clip, ready
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import EncodedFrame, FrameDetections, SegmentInfo
from skyshore.engines.video.detector import Detector
from skyshore.engines.video.engine import OnnxVideoEngine
from skyshore.worker.onnx_engines import start_video

REPEATS = 5
THREADS = 1
"""Inference threads of both sides; what a node takes unless told otherwise."""
FRAMES = 60
AIMS = {"nanodet": 0.9, "centernet": 0.9, "ssd-mobilenet": 0.75}
SYSTEM_MODEL = "nanodet"
SYSTEM_AIM = 0.8
SYSTEM_FRAMES = 120
MEMORY_MODEL = "ssd-mobilenet"
MEMORY_GROWTH = 1.1
LONGER = 4
JPEG_QUALITY = 85
CLIP = "vtest"
DONE_S = 300.0


@dataclass(frozen=True, slots=True)
class Footage:
    """The start of the clip, as the two sides want it."""

    pictures: tuple[ClipFrame, ...]
    encoded: tuple[EncodedFrame, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pictures[0].picture.shape[:2]
        return width, height


def run() -> BenchResult:
    """Measure what is in the model cache.

    Raises:
        NotFetched: the clip is not.
    """
    footage = _footage(clip(CLIP), FRAMES)
    results: list[Metric] = []
    missing: list[str] = []
    for model in AIMS:
        try:
            results += asyncio.run(_beside_bare_loop(model, ready(model), footage))
        except NotFetched as error:
            missing.append(error.message)
    if not missing:
        results += _system(footage)
    settings: dict[str, str | int | float | bool | None] = {
        "clip": CLIP,
        "frames": FRAMES,
        "threads": THREADS,
        "jpeg_quality": JPEG_QUALITY,
        "upload_frames": SYSTEM_FRAMES,
    }
    return BenchResult("video", settings, REPEATS, tuple(results), tuple(missing))


def _footage(path: Path, count: int) -> Footage:
    pictures = tuple(islice(frames(path), count))
    encoded = tuple(EncodedFrame(f.index, f.timestamp_s, encode_jpeg(f.picture, JPEG_QUALITY)) for f in pictures)
    return Footage(pictures, encoded)


async def _beside_bare_loop(model: str, folder: Path, footage: Footage) -> list[Metric]:
    detector = Detector(folder)
    session = OnnxSession(detector.model_file, SessionOptions(intra_op_threads=THREADS))
    size = detector.input_size(*footage.size)
    prepared = [detector.prepare(frame.picture, size)[None] for frame in footage.pictures]
    engine = start_video(model, THREADS)
    bare: list[float] = []
    ours: list[float] = []
    try:
        for repeat in range(REPEATS + 1):
            half = len(prepared) // 2
            before_s = _bare_s(session, prepared[:half])
            ours.append(await _worker_fps(engine, footage))
            bare.append(len(prepared) / (before_s + _bare_s(session, prepared[half:])))
            if repeat == 0:  # the first pass warms both up
                bare.clear()
                ours.clear()
    finally:
        await engine.close()
    peer = f"onnxruntime {metadata.version('onnxruntime')}, bare loop"
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    return [
        Metric.of_repeats(f"{model}, worker", ours, "frames/s", against=peer, against_samples=bare),
        Metric.of_repeats(f"{model}, worker over bare loop", ratios, "", aim=Aim(AIMS[model], "at_least")),
    ]


def _bare_s(session: OnnxSession, prepared: Sequence[NDArray[np.uint8]]) -> float:
    began_s = time.perf_counter()
    for planes in prepared:
        session.run({"frames": planes})
    return time.perf_counter() - began_s


async def _worker_fps(engine: OnnxVideoEngine, footage: Footage) -> float:
    async def send() -> AsyncIterator[EncodedFrame]:
        for frame in footage.encoded:
            yield frame

    info = SegmentInfo(0, len(footage.encoded), *footage.size)
    began_s, done = time.perf_counter(), 0
    async for event in engine.detect(Task("bench", TaskKind.VIDEO_DETECT, deadline_s=DONE_S), info, send()):
        done += isinstance(event, FrameDetections)
    assert done == len(footage.encoded)
    return done / (time.perf_counter() - began_s)


def _system(footage: Footage) -> list[Metric]:
    with TemporaryDirectory(prefix="skyshore-bench-video-") as folder:
        short = _write_clip(Path(folder) / "short.mp4", footage, SYSTEM_FRAMES)
        long = _write_clip(Path(folder) / "long.mp4", footage, SYSTEM_FRAMES * LONGER)
        speed = _end_to_end(short, footage)
        return [*speed, *_memory(short, long)]


def _write_clip(path: Path, footage: Footage, count: int) -> Path:
    """The footage again and again, as an H.264 file."""
    with Mp4Writer(path, 10.0) as movie:
        for frame in islice(cycle(footage.pictures), count):
            movie.write(frame.picture)
    return path


def _end_to_end(short: Path, footage: Footage) -> list[Metric]:
    engine = start_video(SYSTEM_MODEL, THREADS)
    worker: list[float] = []
    system: list[float] = []
    try:
        with _node(SYSTEM_MODEL) as (_, url):
            for repeat in range(REPEATS + 1):
                worker.append(asyncio.run(_worker_fps(engine, footage)))
                system.append(SYSTEM_FRAMES / _upload(url, short))
                if repeat == 0:
                    worker.clear()
                    system.clear()
    finally:
        asyncio.run(engine.close())
    ratios = [whole / alone for whole, alone in zip(system, worker, strict=True)]
    against = "the worker alone, this run"
    return [
        Metric.of_repeats(
            f"{SYSTEM_MODEL}, upload to result", system, "frames/s", against=against, against_samples=worker
        ),
        Metric.of_repeats(f"{SYSTEM_MODEL}, upload to result over worker", ratios, "", aim=Aim(SYSTEM_AIM, "at_least")),
    ]


def _memory(short: Path, long: Path) -> list[Metric]:
    """Peaks of resident memory never fall, so a clip that needs more than the one before it shows."""
    with _node(MEMORY_MODEL) as (group, url):
        for _ in range(2):
            _upload(url, short)
        before = {name: _peak_bytes(group.started[name].pid) for name in ("gateway", "node")}
        _upload(url, long)
        return [
            Metric(
                f"{name}, peak memory of a clip {LONGER} times as long",
                _peak_bytes(group.started[name].pid) / peak,
                "",
                aim=Aim(MEMORY_GROWTH),
                note=f"{peak / 1e6:.0f} MB for {SYSTEM_FRAMES} frames",
            )
            for name, peak in before.items()
        ]


@contextmanager
def _node(model: str) -> Iterator[tuple[Processes, str]]:
    """The whole system with one real node; its link is open, so that what is measured is ours."""
    settings = {"SKYSHORE_NODE_ENGINE": "onnx", "SKYSHORE_NODE_MODELS": model, "SKYSHORE_NODE_THREADS": str(THREADS)}
    with processes() as group:
        (gateway, _) = start_own_system(group, settings)
        yield group, gateway.url.removesuffix(CHAT)


def _upload(url: str, path: Path) -> float:
    """Seconds from the first byte sent to the result."""
    boundary = "skyshore-bench"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    fields = f'--{boundary}\r\ncontent-disposition: form-data; name="class"\r\n\r\nbatch\r\n'
    body = fields.encode() + head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    began_s = time.perf_counter()
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    task_id = _call(Request(f"{url}/v1/video/detections", body, kind))["task_id"]
    with urlopen(f"{url}/v1/tasks/{task_id}/events", timeout=DONE_S) as events:
        last: dict[str, Any] = {}
        for line in events:
            if line.startswith(b"data: "):
                last = json.loads(line.removeprefix(b"data: "))
    if last.get("state") != "done":
        raise RuntimeError(f"the clip was not worked off: {last}")
    _call(Request(f"{url}/v1/tasks/{task_id}/result"))
    return time.perf_counter() - began_s


def _call(request: Request) -> Any:
    with urlopen(request, timeout=DONE_S) as answer:
        return json.load(answer)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no VmHWM for process {pid}")
