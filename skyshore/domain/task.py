"""A task: the unit of placement, with the caller's requirements. It holds no payload."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TaskKind(StrEnum):
    """What a task asks for; the value is the word used in messages, metrics and reports."""

    LLM = "llm"
    VIDEO_DETECT = "video.detect"
    VIDEO_CLASSIFY = "video.classify"


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """Named requirements of a task; the caller chooses a class by its name."""

    name: str
    deadline_s: float
    """Seconds from arrival to the last byte of the answer."""
    min_quality: float = 0.0
    """Lowest acceptable quality in 0..1 (see `Arm.quality`)."""
    priority: int = 0
    """Larger values are served first where a queue may reorder."""


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
    """The only model that may answer; empty means any."""
    origin: str = ""
    """Site the request came from; empty means the gateway's own."""
    job_id: str = ""
    """Upload this task is a segment of; empty for a task that stands alone."""
    traceparent: str = ""
    """W3C trace context, passed on unread."""
