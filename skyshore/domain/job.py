"""An accepted task or job as the store keeps it: its record and its entry in the work stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TaskState(StrEnum):
    """State of a task or a job. The last three are final."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What `/v1/tasks/{id}` shows; the store keeps it for one day after the end."""

    task_id: str
    kind: str
    state: TaskState
    created_at_s: float
    updated_at_s: float
    progress: float = 0.0
    """Share of the work done, 0..1."""
    node_ids: tuple[str, ...] = ()
    error_code: str = ""
    error: str = ""
    result_path: str = ""
    detail: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One entry of the work stream."""

    entry_id: str
    task_id: str
    body: bytes
    deliveries: int
    """Times it was delivered, this one included."""
