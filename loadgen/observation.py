"""What is known so far of one request in flight; becomes a `RequestRecord` when the run ends."""

from __future__ import annotations

from dataclasses import dataclass, fields

from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.outcome import OutcomeStatus
from skyshore.report.request_record import RequestRecord
from skyshore.workload.arrival import Arrival

STATUS_OF_HTTP = {429: OutcomeStatus.REJECTED, 503: OutcomeStatus.REJECTED, 504: OutcomeStatus.DEADLINE_EXCEEDED}
STATUS_OF_CODE = {QueueFull.code: OutcomeStatus.REJECTED, DeadlineExceeded.code: OutcomeStatus.DEADLINE_EXCEEDED}
"""Of an answer that had begun: its HTTP status was 200, and the failure came as an event."""


@dataclass(slots=True)
class Observation:
    """Filled in by the client as things happen. A request without an end counts as cancelled: it was in flight."""

    arrival: Arrival
    status: OutcomeStatus = OutcomeStatus.CANCELLED
    error_code: str = ""
    t_sent_s: float | None = None
    t_first_s: float | None = None
    t_done_s: float | None = None
    task_id: str = ""
    node_id: str = ""
    tier: str = ""
    policy: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    link_bytes: int = 0
    gateway_s: float = 0.0
    queue_s: float = 0.0
    joules: float = 0.0
    energy_source: str = ""
    quality: float = 0.0

    def succeed(self, now_s: float) -> None:
        """The last byte is here."""
        self.status, self.t_done_s = OutcomeStatus.OK, now_s

    def fail(self, error_code: str, now_s: float, http_status: int = 0) -> None:
        """There will be no answer."""
        told = STATUS_OF_HTTP.get(http_status) if http_status else STATUS_OF_CODE.get(error_code)
        self.status, self.t_done_s = told or OutcomeStatus.FAILED, now_s
        self.error_code = error_code

    def record(self) -> RequestRecord:
        """Freeze it."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "arrival"}
        return RequestRecord(
            request_id=self.arrival.request_id,
            kind=self.arrival.kind,
            service_class=self.arrival.service_class,
            origin=self.arrival.origin,
            t_intended_s=self.arrival.t_intended_s,
            deadline_s=self.arrival.deadline_s,
            **own,
        )
