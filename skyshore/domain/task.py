"""A task: one request's unit of placement, and what a caller demands of it. No payload is held here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TaskKind(StrEnum):
    """What a task asks for; the value is the word used on every wire, metric and report."""

    LLM = "llm"
    VIDEO_DETECT = "video.detect"
    VIDEO_CLASSIFY = "video.classify"


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """A named bundle of demands, chosen by the caller with one word."""

    name: str
    deadline_s: float
    """Seconds from arrival to the last byte of the answer."""
    min_quality: float = 0.0
    """Lowest acceptable quality in 0..1 (see `Arm.quality`)."""
    priority: int = 0
    """Larger goes first where a queue may reorder."""


SERVICE_CLASSES: dict[str, ServiceClass] = {
    c.name: c
    for c in (
        ServiceClass("interactive", deadline_s=20.0, priority=2),
        ServiceClass("standard", deadline_s=60.0, priority=1),
        ServiceClass("batch", deadline_s=600.0),
    )
}
"""Classes known without a scenario file; a scenario adds or replaces its own."""


@dataclass(frozen=True, slots=True)
class Task:
    """One request (LLM) or one segment of a request (video), as the scheduler sees it."""

    task_id: str
    kind: TaskKind
    service_class: str = "standard"
    deadline_s: float = 60.0
    """Seconds allowed from arrival to the last byte."""
    min_quality: float = 0.0
    model: str = ""
    """Model the caller insists on; empty means any model that can answer."""
    origin: str = ""
    """Site the request came from; empty means the gateway's own."""
    job_id: str = ""
    """Upload this task is a segment of; empty for a task that stands alone."""
    traceparent: str = ""
    """W3C trace context, carried unread from hop to hop."""
