"""What a client records of a request while it is in flight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.report.request_record import RequestRecord
from skyshore.workload.arrival import Arrival

STATUS_OF_HTTP = {429: OutcomeStatus.REJECTED, 503: OutcomeStatus.REJECTED, 504: OutcomeStatus.DEADLINE_EXCEEDED}
STATUS_OF_CODE = {QueueFull.code: OutcomeStatus.REJECTED, DeadlineExceeded.code: OutcomeStatus.DEADLINE_EXCEEDED}
"""For an answer that had begun: its HTTP status was 200, and the failure came as an event."""


def begin(arrival: Arrival) -> RequestRecord:
    """A request in flight. One that is never ended counts as cancelled."""
    outcome = Outcome(
        task_id="",
        arm_id="",
        node_id="",
        status=OutcomeStatus.CANCELLED,
        finished_at_s=math.inf,
        latency_s=math.inf,
        deadline_s=arrival.deadline_s,
        service_class=arrival.service_class,
        worker=WorkerOutcome(energy_source=""),
    )
    return RequestRecord.of(arrival, outcome)


def note(record: RequestRecord, **known: Any) -> None:
    """Set fields of the record's outcome."""
    record.outcome = replace(record.outcome, **known)


def note_worker(record: RequestRecord, **known: Any) -> None:
    """Set fields of what the node measured."""
    note(record, worker=replace(record.worker, **known))


def succeed(record: RequestRecord, now_s: float) -> None:
    """The last byte has come, `now_s` after the start of the schedule."""
    note(record, status=OutcomeStatus.OK, finished_at_s=now_s, latency_s=now_s - record.t_intended_s)


def fail(record: RequestRecord, error_code: str, now_s: float, http_status: int = 0) -> None:
    """There will be no answer."""
    known = STATUS_OF_HTTP.get(http_status) if http_status else STATUS_OF_CODE.get(error_code)
    status = known or OutcomeStatus.FAILED
    note(record, status=status, finished_at_s=now_s, latency_s=now_s - record.t_intended_s)
    record.error_code = error_code
