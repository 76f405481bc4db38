"""What a client saw of one request: the row behind every figure of a replay's report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TypeVar

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind

T = TypeVar("T")

Json = dict[str, str | float | int | None]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Times are seconds since the schedule's start, by the client's clock; None means that it never happened."""

    request_id: str
    kind: TaskKind
    service_class: str
    t_intended_s: float
    deadline_s: float
    status: OutcomeStatus
    origin: str = ""
    t_sent_s: float | None = None
    t_first_s: float | None = None
    """First token (LLM); None for video."""
    t_done_s: float | None = None
    error_code: str = ""
    task_id: str = ""
    node_id: str = ""
    """Nodes that served it, joined by commas where segments went to several."""
    tier: str = ""
    policy: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    sent_bytes: int = 0
    """Request as it left the client."""
    received_bytes: int = 0
    link_bytes: int = 0
    """Both ways between gateway and node, as the gateway counted."""
    gateway_s: float = 0.0
    queue_s: float = 0.0
    joules: float = 0.0
    energy_source: str = ""
    """Where the joules come from; empty where the server did not say."""
    quality: float = 0.0

    @property
    def latency_s(self) -> float:
        """From the intended time to the last byte; infinite unless the request succeeded."""
        if self.status is not OutcomeStatus.OK or self.t_done_s is None:
            return math.inf
        return self.t_done_s - self.t_intended_s

    @property
    def lag_s(self) -> float:
        """How late the client itself was; infinite for a request it never sent."""
        return math.inf if self.t_sent_s is None else self.t_sent_s - self.t_intended_s

    @property
    def ttft_s(self) -> float:
        """Time to first token from the intended time (LLM); infinite unless the request succeeded."""
        if self.status is not OutcomeStatus.OK or self.t_first_s is None:
            return math.inf
        return self.t_first_s - self.t_intended_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for a failure or an answer of a single token."""
        if self.status is not OutcomeStatus.OK or self.t_first_s is None or self.t_done_s is None:
            return None
        return (self.t_done_s - self.t_first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    @property
    def met_deadline(self) -> bool:
        """Whether the whole answer was there in time, counted from the intended time."""
        return self.latency_s <= self.deadline_s

    def to_json(self) -> Json:
        """A flat object; derived figures are added, infinite ones as the word `inf`."""
        derived = {"latency_s": self.latency_s, "ttft_s": self.ttft_s if self.kind is TaskKind.LLM else None}
        return {name: in_json(value) for name, value in (asdict(self) | derived).items()}


def in_json(value: T) -> T | str | None:
    """JSON has no infinities: infinite becomes `inf` (float('inf') reads it), not-a-number becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
