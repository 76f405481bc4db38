"""What a task cost: measured latency split, bytes, joules with their provenance, quality."""

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
    prefill_s: float = 0.0
    """LLM: prompt processing. Video: decode and pre-processing."""
    compute_s: float = 0.0
    """LLM: decode. Video: inference and post-processing."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    inference_joules: float = 0.0
    idle_joules: float = 0.0
    energy_source: str = "unknown"
    """`measured:nvml`, `measured:rapl` or `modelled:<model>`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole of it, as the gateway completes it and the policy learns from it."""

    task_id: str
    arm_id: str
    node_id: str
    status: OutcomeStatus
    finished_at_s: float
    latency_s: float
    """Arrival at the gateway to the last byte sent."""
    deadline_s: float
    ttft_s: float = 0.0
    """Arrival to the first token; zero for video."""
    gateway_s: float = 0.0
    """Time the gateway, profiler and scheduler added before dispatch."""
    up_bytes: int = 0
    down_bytes: int = 0
    transmission_joules: float = 0.0
    quality: float = 0.0
    service_class: str = "standard"
    error: str = ""
    worker: WorkerOutcome = WorkerOutcome()

    @property
    def met_deadline(self) -> bool:
        """Whether the answer was complete and in time."""
        return self.status is OutcomeStatus.OK and self.latency_s <= self.deadline_s

    @property
    def joules(self) -> float:
        """Transmission, inference and idle share together."""
        return self.transmission_joules + self.worker.inference_joules + self.worker.idle_joules
