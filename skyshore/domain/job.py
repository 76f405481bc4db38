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


ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


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
    starts: int = 0
    """Of a job: times it was begun since it last finished a part. Only a job that ends its gateway has many."""
    failures: int = 0
    """Of a job: tries that failed by themselves."""


@dataclass(frozen=True, slots=True)
class JobRank:
    """What the queue needs to know of a job to choose the next one."""

    caller: str = ""
    priority: int = 0
    """Of its service class; larger values are served first."""
    due_at_s: float = 0.0
    """When it should be done, on the clock of `time.time`."""
    work_pixels: float = 0.0
    """Frames times pixels; see `gateway.video.job_queue`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One entry of the work stream."""

    entry_id: str
    task_id: str
    body: bytes
    deliveries: int
    """Times it was claimed, this one included."""


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """An entry of the work stream that no gateway works on."""

    entry_id: str
    rank: JobRank
    deliveries: int = 0
    """Times it was claimed. Above 0, its last try failed or its gateway died."""
