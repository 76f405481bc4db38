"""What a task cost: times in seconds, bytes, joules with their source, quality."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeStatus(StrEnum):
    """How a task ended."""

    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class WorkerOutcome:
    """The part of an outcome that the node itself measures; the last message of every execution."""

    queue_s: float = 0.0
    """Seconds from arrival at the node to the start of the work."""
    prefill_s: float = 0.0
    """Seconds of preparation. LLM: prefill, from the slot to the first token. Video: decoding and scaling of frames,
    summed over frames; the name is the LLM's, because event logs and bundles hold it."""
    compute_s: float = 0.0
    """Seconds of generation or inference. LLM: from the first token to the last. Video: inference and post-processing,
    summed over frames. Stages of video overlap, so the sum of both may exceed the time that passed."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens served from the prefix cache."""
    output_tokens: int = 0
    frames: int = 0
    """Frames processed."""
    inference_joules: float = 0.0
    """Joules above idle power for this task."""
    idle_joules: float = 0.0
    """This task's share of the node's idle joules."""
    energy_source: str = "unknown"
    """`measured:nvml`, `measured:rapl` or `modelled:<model>`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The complete outcome. The gateway fills it in; the policy learns from it."""

    task_id: str
    arm_id: str
    node_id: str
    status: OutcomeStatus
    finished_at_s: float
    latency_s: float
    """Seconds from arrival at the gateway to the last byte sent."""
    deadline_s: float
    ttft_s: float = 0.0
    """Seconds from arrival to the first token; 0 for video."""
    gateway_s: float = 0.0
    """Seconds that gateway, profiler and scheduler added before dispatch."""
    up_bytes: int = 0
    down_bytes: int = 0
    transmission_joules: float = 0.0
    quality: float = 0.0
    service_class: str = "standard"
    error: str = ""
    worker: WorkerOutcome = WorkerOutcome()

    @property
    def met_deadline(self) -> bool:
        """Whether the answer was complete within the deadline."""
        return self.status is OutcomeStatus.OK and self.latency_s <= self.deadline_s

    @property
    def joules(self) -> float:
        """Transmission, inference and idle share together."""
        return self.transmission_joules + self.worker.inference_joules + self.worker.idle_joules
