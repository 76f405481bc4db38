"""Bodies of requests, made before the run so that making them is not measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival
from skyshore.workload.prompts import TokenCounter, lettered_prompt, prompt_text

BOUNDARY = "skyshore-replay-7d1f0c2a9b"
"""Between the parts of an upload; fixed, because the clips are ours and hold no such line."""


@dataclass(frozen=True, slots=True)
class ClipCut:
    """A run of frames of a clip, sampled at a rate; equal cuts share one encoded file."""

    clip: str
    first_frame: int
    frames: int
    fps: float

    @classmethod
    def of(cls, arrival: Arrival) -> ClipCut:
        """The cut that an arrival asks for."""
        return cls(arrival.clip, arrival.first_frame, arrival.frames, arrival.fps)


@dataclass(frozen=True, slots=True)
class Payload:
    """Ready to send; `parts` are written one after another."""

    path: str
    headers: Mapping[str, str]
    parts: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """Of the body."""
        return sum(map(len, self.parts))


def payloads(
    arrivals: Iterable[Arrival],
    cuts: Mapping[ClipCut, bytes],
    *,
    seed: int,
    model: str = "",
    count_tokens: TokenCounter | None = None,
    letters_per_token: int = 0,
) -> dict[str, Payload]:
    """One payload per request id. `cuts` holds the encoded file of each cut of the video arrivals.

    Prompts are exactly as long as scheduled with `count_tokens`, or for engines that count letters.

    LLM answers have exactly the scheduled length: the end-of-text token is ignored up to `output_tokens`.
    """
    made: dict[str, Payload] = {}
    for arrival in arrivals:
        if arrival.kind is TaskKind.LLM:
            if letters_per_token:
                prompt = lettered_prompt(arrival, seed, letters_per_token)
            else:
                prompt = prompt_text(arrival, seed, count_tokens)
            made[arrival.request_id] = _completion(arrival, prompt, model)
        else:
            made[arrival.request_id] = _upload(arrival, cuts[ClipCut.of(arrival)])
    return made


def _completion(arrival: Arrival, prompt: str, model: str) -> Payload:
    body = {
        "model": model or "auto",
        "prompt": prompt,
        "max_tokens": arrival.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {**_demands(arrival), "content-type": "application/json"}
    return Payload("/v1/completions", headers, (orjson.dumps(body),))


def _upload(arrival: Arrival, clip: bytes) -> Payload:
    name = f"{arrival.camera or 'clip'}-{arrival.first_frame}.mp4"
    head = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
        "content-type: video/mp4\r\n\r\n"
    )
    headers = {**_demands(arrival), "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    path = "/v1/video/detections" if arrival.kind is TaskKind.VIDEO_DETECT else "/v1/video/classifications"
    return Payload(path, headers, (head.encode(), clip, f"\r\n--{BOUNDARY}--\r\n".encode()))


def _demands(arrival: Arrival) -> dict[str, str]:
    headers = {
        "x-request-id": arrival.request_id,
        "x-skyshore-class": arrival.service_class,
        "x-skyshore-deadline-s": f"{arrival.deadline_s:g}",
    }
    return headers | ({"x-skyshore-min-quality": f"{arrival.min_quality:g}"} if arrival.min_quality else {})
