"""The two requests of the demo: a chat, streamed to the terminal, and a clip with a progress bar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.connection import GatewayApi
from cli.render import say
from skyshore.adapters.video_source import frames
from skyshore.domain.errors import SkyshoreError

QUESTION = "Why would a camera send its pictures to a nearby computer instead of a far one? Answer in two sentences."
MOST_FRAMES = 300
"""Of a longer clip only every n-th frame is used, so that the demo stays short on two cores."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The answer for one clip."""

    result: dict[str, Any]
    """As `/v1/tasks/ID/result` gives it: segments with their placements, boxes per frame."""
    movie: bytes
    """The clip with its boxes, MP4."""


def chat(api: GatewayApi, console: Console) -> None:
    """Send `QUESTION` and print the answer as it arrives.

    Raises:
        SkyshoreError: the gateway refused, or the answer ended with an error.
    """
    messages = [{"role": "user", "content": QUESTION}]
    body = {"messages": messages, "max_tokens": 96, "temperature": 0, "stream_options": {"include_usage": True}}
    say(console, ("you:", "bold"), f" {QUESTION}")
    with api.chat(body, "standard") as (headers, chunks):
        node, tier, policy = (headers.get(f"x-skyshore-{name}") for name in ("node", "tier", "policy"))
        say(console, (f"placed on {node} ({tier}) by {policy}", "dim"))
        for chunk in chunks:
            if error := chunk.get("error"):
                raise SkyshoreError(f"{error['message']} ({error['code']})")
            for choice in chunk.get("choices") or ():
                console.print(choice["delta"].get("content", ""), end="", markup=False, highlight=False)
            if usage := chunk.get("usage"):
                say(console, (f"\n{usage['completion_tokens']} tokens", "dim"))


def detect(api: GatewayApi, clip: Path, frame_count: int, console: Console) -> Detected:
    """Send a clip, show its progress, print placements and objects, and fetch the annotated clip.

    Raises:
        SkyshoreError: the gateway refused, or the task failed.
    """
    stride = -(-frame_count // MOST_FRAMES)
    fields = {"class": "batch", "frame_stride": str(stride)}
    task_id = api.upload("/v1/video/detections", clip.name, clip.read_bytes(), fields)["task_id"]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[nodes]}"), console=console) as bar:
        about = f"{clip.name}, {-(-frame_count // stride)} of {frame_count} frames"
        shown = bar.add_task(about, total=1.0, nodes="")
        for state in api.task_states(task_id):
            bar.update(shown, completed=state["progress"], nodes=", ".join(state["nodes"]))
    result = api.get(f"/v1/tasks/{task_id}/result")
    _print_result(result, console)
    with console.status("drawing the boxes"):
        return Detected(result, api.read(f"/v1/tasks/{task_id}/annotated.mp4"))


def save_detected(detected: Detected, out: Path) -> list[Path]:
    """Write the annotated clip and, if anything was found, the frame with the most objects as a picture."""
    out.mkdir(parents=True, exist_ok=True)
    movie, picture = out / "annotated.mp4", out / "annotated.png"
    movie.write_bytes(detected.movie)
    fullest = max(detected.result["frames"], key=lambda frame: len(frame["detections"]), default=None)
    if fullest is None or not fullest["detections"]:
        return [movie]
    for frame in frames(movie):
        if frame.index == fullest["frame_index"]:
            cv2.imwrite(str(picture), frame.picture)
            return [picture, movie]
    return [movie]


def _print_result(result: dict[str, Any], console: Console) -> None:
    places = Counter((part["node"], part["tier"], part["model"], part["policy"]) for part in result["segments"])
    for (node, tier, model, policy), count in sorted(places.items()):
        segments = "1 segment" if count == 1 else f"{count} segments"
        say(console, (f"{node} ({tier}, {model}): {segments}, by {policy}", "dim"))
    found = Counter(box["label"] for frame in result["frames"] for box in frame["detections"])
    names = ", ".join(f"{count} {label}" for label, count in found.most_common(5)) or "nothing"
    rate = len(result["frames"]) / result["wall_s"] if result["wall_s"] else 0.0
    say(console, f"{len(result['frames'])} frames in {result['wall_s']:.1f} s ({rate:.0f}/s), boxes: {names}")
