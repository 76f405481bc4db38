"""The demo's two requests, made by hand: a chat streamed to the terminal, a clip with a live progress bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.render import say
from loadgen.http1 import HttpClient, Response
from loadgen.payloads import BOUNDARY
from loadgen.sse import EventParser
from skyshore.adapters.video_source import frames
from skyshore.domain.errors import SkyshoreError

QUESTION = "Why would a camera send its pictures to a nearby computer instead of a far one? Answer in two sentences."
MOST_FRAMES = 300
"""A longer clip is looked at every n-th frame, so that the demo stays short on two cores."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What came back of a clip."""

    result: dict[str, Any]
    """As `/result` has it: segments with their placements, boxes per frame."""
    movie: bytes
    """The clip with its boxes, MP4."""


async def chat(http: HttpClient, console: Console) -> None:
    """Ask `QUESTION` and print the answer as it comes.

    Raises:
        SkyshoreError: the gateway refused or the answer broke off.
    """
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 96,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    say(console, ("you:", "bold"), f" {QUESTION}")
    headers = {"content-type": "application/json", "x-skyshore-class": "standard"}
    async with http.request("POST", "/v1/chat/completions", headers, (orjson.dumps(body),)) as answer:
        await _insist(answer, 200)
        say(console, (_placed(answer), "dim"))
        async with aclosing(_json_events(answer)) as events:
            async for event in events:
                _raise_error(event)
                for choice in event.get("choices") or ():
                    console.print(choice["delta"].get("content", ""), end="", markup=False, highlight=False)
                if usage := event.get("usage"):
                    say(console, (f"\n{usage['completion_tokens']} tokens", "dim"))


async def detect(http: HttpClient, clip: Path, frame_count: int, console: Console) -> Detected:
    """Send a clip, follow it, say where its segments went and what was found, and fetch the annotated clip.

    Raises:
        SkyshoreError: the gateway refused or the task failed.
    """
    stride = -(-frame_count // MOST_FRAMES)
    form = _form(clip, {"class": "batch", "frame_stride": str(stride)})
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    async with http.request("POST", "/v1/video/detections", headers, form) as answer:
        await _insist(answer, 202)
        task_id = str(orjson.loads(await answer.read())["task_id"])
    await _follow(http, task_id, f"{clip.name}, {-(-frame_count // stride)} of {frame_count} frames", console)
    async with http.request("GET", f"/v1/tasks/{task_id}/result") as answer:
        await _insist(answer, 200)
        result = orjson.loads(await answer.read())
    _tell(result, console)
    with console.status("drawing the boxes"):
        async with http.request("GET", f"/v1/tasks/{task_id}/annotated.mp4") as answer:
            await _insist(answer, 200)
            return Detected(result, await answer.read())


def save_detected(detected: Detected, out: Path) -> list[Path]:
    """Write the annotated clip and, if anything was found, its fullest frame as a picture."""
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


async def _follow(http: HttpClient, task_id: str, about: str, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[nodes]}"), console=console) as bar:
        shown = bar.add_task(about, total=1.0, nodes="")
        async with http.request("GET", f"/v1/tasks/{task_id}/events") as answer:
            await _insist(answer, 200)
            async with aclosing(_json_events(answer)) as events:
                async for state in events:
                    bar.update(shown, completed=state["progress"], nodes=", ".join(state["nodes"]))
                    if state["state"] == "failed":
                        _raise_error(state)
                    if state["state"] == "done":
                        return
    raise SkyshoreError(f"the gateway stopped telling of task {task_id}; see `skyshore status`")


def _tell(result: dict[str, Any], console: Console) -> None:
    places = Counter((part["node"], part["tier"], part["model"], part["policy"]) for part in result["segments"])
    for (node, tier, model, policy), count in sorted(places.items()):
        segments = "1 segment" if count == 1 else f"{count} segments"
        say(console, (f"{node} ({tier}, {model}): {segments}, by {policy}", "dim"))
    found = Counter(box["label"] for frame in result["frames"] for box in frame["detections"])
    names = ", ".join(f"{count} {label}" for label, count in found.most_common(5)) or "nothing"
    rate = len(result["frames"]) / result["wall_s"] if result["wall_s"] else 0.0
    say(console, f"{len(result['frames'])} frames in {result['wall_s']:.1f} s ({rate:.0f}/s), boxes: {names}")


def _form(clip: Path, fields: dict[str, str]) -> tuple[bytes, ...]:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{clip.name}"\r\n\r\n'
    return ("".join([*parts, head]).encode(), clip.read_bytes(), f"\r\n--{BOUNDARY}--\r\n".encode())


def _placed(answer: Response) -> str:
    said = answer.headers
    return f"placed on {said.get('x-skyshore-node')} ({said.get('x-skyshore-tier')}) by {said.get('x-skyshore-policy')}"


async def _json_events(answer: Response) -> AsyncGenerator[dict[str, Any]]:
    parser = EventParser()
    async for chunk in answer.chunks():
        for event in parser.feed(chunk):
            if event.data != "[DONE]":
                yield orjson.loads(event.data)


async def _insist(answer: Response, status: int) -> None:
    if answer.status != status:
        body = await answer.read()
        try:
            _raise_error(orjson.loads(body))
        except ValueError:
            raise SkyshoreError(f"the gateway answers {answer.status}: {body[:200]!r}") from None


def _raise_error(body: dict[str, Any]) -> None:
    if error := body.get("error"):
        raise SkyshoreError(f"{error['message']} ({error['code']})")
