"""`skyshore detect`: sends a clip or a live camera to the running system and prints boxes as they arrive."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.connection import GatewayApi
from cli.render import say
from skyshore.adapters.video_draw import Mp4Writer
from skyshore.adapters.video_live import LiveFrames, open_camera
from skyshore.adapters.video_source import ClipFrame
from skyshore.domain.errors import SkyshoreError
from skyshore.domain.video import Detection
from skyshore.workload.annotations import write_mot

DETECTIONS = "/v1/video/detections"
BUFFER_FRAMES = 16
"""Frames that may wait while earlier frames are encoded."""


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """Options of every clip that is sent."""

    model: str
    service_class: str
    classes: str
    min_score: float

    def fields(self) -> dict[str, str]:
        """As form fields."""
        return {
            "model": self.model,
            "class": self.service_class,
            "classes": self.classes,
            "min_score": str(self.min_score),
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """A few seconds of a camera, as one clip."""

    frames: tuple[tuple[int, float], ...]
    """Index and time in seconds of each, from the camera."""
    movie: bytes


def detect_clip(api: GatewayApi, clip: Path, options: DetectOptions, out: Path | None, *, as_mot: bool) -> None:
    """Send a whole clip, wait, print its boxes; with `out` also save the annotated clip and the contact sheet.

    Raises:
        SkyshoreError: the gateway refused, or the task failed.
    """
    task_id = api.upload(DETECTIONS, clip.name, clip.read_bytes(), options.fields())["task_id"]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        shown = bar.add_task(clip.name, total=1.0)
        for state in api.task_states(task_id):
            bar.update(shown, completed=state["progress"])
    _print_frames(api.get(f"/v1/tasks/{task_id}/result")["frames"], as_mot=as_mot)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("annotated.mp4", "contact-sheet.png"):
            (out / name).write_bytes(api.read(f"/v1/tasks/{task_id}/{name}"))


def detect_live(
    api: GatewayApi, source: str, options: DetectOptions, *, fps: float, piece_s: float, in_flight: int, as_mot: bool
) -> None:
    """Cut a camera into pieces and send each; a piece is dropped while `in_flight` others are unanswered.

    Results are printed in the order of the camera. Ends with the source, or with Ctrl-C.

    Raises:
        NotFound: no such source.
    """
    with LiveFrames(open_camera(source, fps), room=BUFFER_FRAMES) as live:
        waiting: list[Future[list[dict[str, Any]]]] = []
        dropped = sent = 0
        with ThreadPoolExecutor(in_flight) as senders:
            try:
                for frames in _pieces(live, piece_s):
                    waiting = _print_done(waiting, as_mot=as_mot)
                    if sum(not each.done() for each in waiting) >= in_flight:
                        dropped += len(frames)
                        continue
                    sent += len(frames)
                    waiting.append(senders.submit(_send, api, _piece(frames, live.fps), options))
            except KeyboardInterrupt:
                pass
            while waiting:
                wait(waiting, return_when=FIRST_COMPLETED)
                waiting = _print_done(waiting, as_mot=as_mot)
        counts = f"{sent} frames sent; dropped: {dropped} (system busy), {live.dropped} (this machine busy)"
        say(Console(stderr=True), counts)


def _pieces(live: LiveFrames, piece_s: float) -> Iterator[list[ClipFrame]]:
    frames: list[ClipFrame] = []
    for frame in live:
        if frames and frame.timestamp_s - frames[0].timestamp_s >= piece_s:
            yield frames
            frames = []
        frames.append(frame)
    if frames:
        yield frames


def _piece(frames: list[ClipFrame], fps: float) -> Piece:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with Mp4Writer(Path(file.name), fps) as movie:
            for frame in frames:
                movie.write(frame.picture)
        return Piece(tuple((frame.index, frame.timestamp_s) for frame in frames), Path(file.name).read_bytes())


def _send(api: GatewayApi, piece: Piece, options: DetectOptions) -> list[dict[str, Any]]:
    task_id = api.upload(DETECTIONS, "live.mp4", piece.movie, options.fields())["task_id"]
    for _ in api.task_states(task_id):
        pass
    found = []
    for frame in api.get(f"/v1/tasks/{task_id}/result")["frames"]:
        index, timestamp_s = piece.frames[frame["frame_index"]]
        found.append(frame | {"frame_index": index, "timestamp_s": round(timestamp_s, 4)})
    return found


def _print_done(waiting: list[Future[list[dict[str, Any]]]], *, as_mot: bool) -> list[Future[list[dict[str, Any]]]]:
    """Print the pieces that are done, up to the first that is not; return the others."""
    while waiting and waiting[0].done():
        try:
            _print_frames(waiting.pop(0).result(), as_mot=as_mot)
        except SkyshoreError as error:  # one lost piece must not end the stream
            say(Console(stderr=True), f"a piece was lost: {error.message}")
    return waiting


def _print_frames(frames: list[dict[str, Any]], *, as_mot: bool) -> None:
    for frame in frames:
        if as_mot:
            boxes = [Detection(**box) for box in frame["detections"]]
            sys.stdout.write(write_mot([(frame["frame_index"], boxes)]))
        else:
            sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()
