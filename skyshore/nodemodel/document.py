"""Node profiles as JSON documents: plain objects in, checked values out, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any, TypeVar

from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed

Speed = TypeVar("Speed", LlmSpeed, VideoSpeed)

VERSION = 1
"""Of the format. A reader takes its own version and documents that name none."""
CHOICES: Mapping[str, Sequence[StrEnum]] = {
    "codec": tuple(Codec),
    "kind": (TaskKind.VIDEO_DETECT, TaskKind.VIDEO_CLASSIFY),
}
"""Fields that hold one of a few words."""
POSITIVE = {"slots", "chunk_tokens", "kv_tokens", "context_tokens", "frame_stride", "row_multiple"}


class ProfileError(ValueError):
    """A node profile that cannot be used; the message names the field and the fix."""


def _number(where: str, name: str, value: object, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value != int(value)):
        raise ProfileError(f"{where}.{name} must be {'a whole number' if kind is int else 'a number'}, not {value!r}")
    if value < 0 or (value == 0 and name in POSITIVE):
        raise ProfileError(f"{where}.{name} must be {'positive' if name in POSITIVE else 'at least 0'}, not {value}")
    return kind(value)


def _speed(kind: type[Speed], where: str, entry: object) -> Speed:
    if not isinstance(entry, Mapping):
        raise ProfileError(f"{where} must be an object with at least a model, not {entry!r}")
    known = {field.name: type(field.default) for field in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in known:
            raise ProfileError(f"{where}.{name} is unknown; known are {', '.join(known)}")
        if name in ("model", "source") or known[name] is str:
            values[name] = str(value)
        elif name in CHOICES:
            values[name] = _choice(where, name, value)
        else:
            values[name] = _number(where, name, value, known[name])
    for name in ("model", "source"):
        if not values.get(name):
            raise ProfileError(f"{where}.{name} is missing: every figure says what it is of and where it is from")
    for name in ("quality", "map50"):
        if values.get(name, 1.0) > 1.0:
            raise ProfileError(f"{where}.{name} must be in 0..1, not {values[name]}")
    return kind(**values)


def _choice(where: str, name: str, value: object) -> StrEnum:
    chosen = next((word for word in CHOICES[name] if word == value), None)
    if chosen is None:
        raise ProfileError(f"{where}.{name} must be one of {', '.join(CHOICES[name])}, not {value!r}")
    return chosen


def profile_from_document(document: object) -> NodeProfile:
    """Check a parsed JSON document. Raises ProfileError."""
    if not isinstance(document, Mapping):
        raise ProfileError("a node profile is a JSON object with name, source, idle_watts, llm, video")
    if document.get("version", VERSION) != VERSION:
        raise ProfileError(
            f"version {document['version']!r} is not the version {VERSION} this build reads; make it again"
        )
    unknown = set(document) - {field.name for field in fields(NodeProfile)} - {"version"}
    if unknown:
        raise ProfileError(f"{sorted(unknown)[0]} is unknown; known are name, source, idle_watts, llm, video")
    for name in ("name", "source"):
        if not document.get(name):
            raise ProfileError(f"{name} is missing")
    return NodeProfile(
        name=str(document["name"]),
        source=str(document["source"]),
        idle_watts=_number("profile", "idle_watts", document.get("idle_watts", 0.0), float),
        llm=tuple(_speed(LlmSpeed, f"llm[{i}]", entry) for i, entry in enumerate(document.get("llm", ()))),
        video=tuple(_speed(VideoSpeed, f"video[{i}]", entry) for i, entry in enumerate(document.get("video", ()))),
    )


def profile_to_document(profile: NodeProfile) -> dict[str, Any]:
    """What `profile_from_document` reads."""
    return {"version": VERSION, **asdict(profile)}
