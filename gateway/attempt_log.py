"""What became of one task, attempt by attempt: outcomes for the scheduler, a record for the caller, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from gateway.records import RecordWriter
from skyshore.domain.errors import DeadlineExceeded, InvalidTask, QueueFull, SkyshoreError
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.task import Task
from skyshore.runtime import telemetry

# prometheus_client looks a label up under a lock each time.
_requests = cache(telemetry.REQUESTS.labels)
_latency = cache(telemetry.LATENCY.labels)
_STATES = {OutcomeStatus.OK: TaskState.DONE, OutcomeStatus.CANCELLED: TaskState.CANCELLED}


JoulesPerByte = Callable[[str], float]
"""Node id → energy of one byte on its link, as modelled by whoever emulates it; 0 where nobody says."""


def status_of(error: SkyshoreError) -> OutcomeStatus:
    """How a task ended that `error` ended."""
    if isinstance(error, DeadlineExceeded):
        return OutcomeStatus.DEADLINE_EXCEEDED
    if isinstance(error, QueueFull):
        return OutcomeStatus.REJECTED
    # A caller's mistake says nothing about the arm; the policy must not learn from it.
    return OutcomeStatus.CANCELLED if isinstance(error, InvalidTask) else OutcomeStatus.FAILED


class Ledger:
    """Fill in the figures as they become known, then `close` once."""

    def __init__(self, records: RecordWriter, task: Task, arrived_s: float, price: JoulesPerByte) -> None:
        """`arrived_s` is on `time.monotonic`."""
        self._records, self._task, self._arrived_s, self._price = records, task, arrived_s, price
        self._placement: Placement | None = None
        self.up_bytes = self.down_bytes = 0
        """On the node's link, framing (see `skyshore.links.framing`) included."""
        self.overhead_s = 0.0
        """Arrival to dispatch: what gateway, profiler and scheduler added."""
        self.ttft_s = 0.0
        self.worker = WorkerOutcome()

    def begin(self, placement: Placement) -> float:
        """An attempt goes out now. Returns the seconds used so far."""
        self._placement = placement
        self.overhead_s = time.monotonic() - self._arrived_s
        return self.overhead_s

    def first_token(self) -> None:
        """The first token is here."""
        self.ttft_s = time.monotonic() - self._arrived_s

    def costs(self) -> dict[str, float | str]:
        """What the task took, for its caller; complete once the node's own figures are here."""
        worker = self.worker
        return {
            "queue_ms": worker.queue_s * 1000,
            "prefill_ms": worker.prefill_s * 1000,
            "compute_ms": worker.compute_s * 1000,
            "up_bytes": self.up_bytes,
            "down_bytes": self.down_bytes,
            "joules": worker.inference_joules + worker.idle_joules,
            "energy_source": worker.energy_source,
            # Apart, because it is always a model's figure, whatever measured the node.
            "transmission_joules": self._transmission_joules(),
            "quality": self._placement.arm.quality if self._placement else 0.0,
        }

    def attempt_failed(self, error: SkyshoreError) -> None:
        """The attempt failed and may be followed by another; the policy learns of it, the caller need not."""
        self._report(status_of(error), error.message)
        self._placement = None

    def close(self, status: OutcomeStatus, error: str = "") -> Outcome:
        """Nothing follows. Returns the outcome."""
        outcome = self._report(status, error)
        kind = self._task.kind.value
        _requests(kind, status.value).inc()
        _latency(kind).observe(outcome.latency_s)
        telemetry.OVERHEAD.observe(self.overhead_s)
        if self.ttft_s:
            telemetry.TTFT.observe(self.ttft_s)
        return outcome

    def record(self, outcome: Outcome, code: str = "") -> None:
        """Keep what `/v1/tasks/{id}` shows of a task that stands alone; `code` is the error's word."""
        state = TaskState.FAILED if code else _STATES[outcome.status]
        self._records.task(
            TaskRecord(
                task_id=outcome.task_id,
                kind=self._task.kind.value,
                state=state,
                created_at_s=outcome.finished_at_s - outcome.latency_s,
                updated_at_s=outcome.finished_at_s,
                progress=1.0 if state is TaskState.DONE else 0.0,
                node_ids=(outcome.node_id,) if outcome.node_id else (),
                error_code=code,
                error=outcome.error,
            )
        )

    def _transmission_joules(self) -> float:
        if self._placement is None:
            return 0.0
        return (self.up_bytes + self.down_bytes) * self._price(self._placement.arm.node_id)

    def _report(self, status: OutcomeStatus, error: str) -> Outcome:
        arm = self._placement.arm if self._placement else None
        outcome = Outcome(
            task_id=self._task.task_id,
            arm_id=arm.arm_id if arm else "",
            node_id=arm.node_id if arm else "",
            status=status,
            finished_at_s=time.time(),
            latency_s=time.monotonic() - self._arrived_s,
            deadline_s=self._task.deadline_s,
            ttft_s=self.ttft_s,
            gateway_s=self.overhead_s,
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
            transmission_joules=self._transmission_joules(),
            quality=arm.quality if arm and status is OutcomeStatus.OK else 0.0,
            service_class=self._task.service_class,
            error=error,
            worker=self.worker,
        )
        if arm:  # without one there is nothing to learn about
            self._records.outcome(outcome)
        return outcome
