"""What a client notes of one request while it is in flight; becomes a `RequestRecord` when the run ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.report.request_record import RequestRecord
from skyshore.workload.arrival import Arrival

STATUS_OF_HTTP = {429: OutcomeStatus.REJECTED, 503: OutcomeStatus.REJECTED, 504: OutcomeStatus.DEADLINE_EXCEEDED}
STATUS_OF_CODE = {QueueFull.code: OutcomeStatus.REJECTED, DeadlineExceeded.code: OutcomeStatus.DEADLINE_EXCEEDED}
"""For an answer that had begun: its HTTP status was 200, and the failure came as an event."""


@dataclass(slots=True)
class Observation:
    """Values by field name, noted as they become known: no object is built while requests are sent.

    A request without an end counts as cancelled: it was in flight when the run stopped.
    """

    arrival: Arrival
    own: dict[str, Any] = field(default_factory=dict)
    """Fields of `RequestRecord`."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """Fields of its `Outcome`."""
    worker: dict[str, Any] = field(default_factory=dict)
    """Fields of the `WorkerOutcome`."""
    status: OutcomeStatus = OutcomeStatus.CANCELLED
    end_s: float = math.inf
    """Since the start of the schedule."""

    def succeed(self, now_s: float) -> None:
        """The last byte has come."""
        self.status, self.end_s = OutcomeStatus.OK, now_s

    def fail(self, error_code: str, now_s: float, http_status: int = 0) -> None:
        """There will be no answer."""
        known = STATUS_OF_HTTP.get(http_status) if http_status else STATUS_OF_CODE.get(error_code)
        self.status, self.end_s = known or OutcomeStatus.FAILED, now_s
        self.own["error_code"] = error_code

    def record(self) -> RequestRecord:
        """The request as it is known now."""
        known = {"task_id": "", "arm_id": "", "node_id": "", **self.outcome}
        outcome = Outcome(
            **known,
            status=self.status,
            finished_at_s=self.end_s,
            latency_s=self.end_s - self.arrival.t_intended_s,
            deadline_s=self.arrival.deadline_s,
            service_class=self.arrival.service_class,
            worker=WorkerOutcome(**{"energy_source": "", **self.worker}),
        )
        record = RequestRecord.of(self.arrival, outcome)
        for name, value in self.own.items():
            setattr(record, name, value)
        return record
