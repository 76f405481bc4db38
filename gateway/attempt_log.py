"""What is recorded of one task, attempt by attempt: outcomes for the scheduler, a record for the caller, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from gateway.endings import TaskEnding, ending_of
from gateway.records import RecordWriter
from skyshore.domain.errors import SkyshoreError
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.task import Task
from skyshore.runtime import telemetry

# prometheus_client takes a lock at each lookup of a label.
_requests = cache(telemetry.REQUESTS.labels)
_latency = cache(telemetry.LATENCY.labels)
_STATES = {OutcomeStatus.OK: TaskState.DONE, OutcomeStatus.CANCELLED: TaskState.CANCELLED}

JoulesPerByte = Callable[[str], float]
"""Node id → joules per byte of its link, as its emulator models it; 0 if unknown."""


class AttemptLog:
    """Set the figures as they become known, then `close` once."""

    def __init__(self, records: RecordWriter, task: Task, arrived_s: float, joules_per_byte: JoulesPerByte) -> None:
        """`arrived_s` is on `time.monotonic`."""
        self._records, self._task, self._arrived_s = records, task, arrived_s
        self._joules_per_byte = joules_per_byte
        self._placement: Placement | None = None
        self.up_bytes = self.down_bytes = 0
        """On the node's link, framing (see `skyshore.links.framing`) included."""
        self.overhead_s = 0.0
        """Arrival to dispatch: the time that gateway, profiler and scheduler took."""
        self.ttft_s = 0.0
        """Arrival to the first token; 0 for video."""
        self.worker = WorkerOutcome()

    def begin(self, placement: Placement) -> None:
        """An attempt starts now."""
        self._placement = placement
        self.overhead_s = time.monotonic() - self._arrived_s

    @property
    def node_id(self) -> str:
        """The node of the newest attempt; empty if there is none."""
        return self._placement.arm.node_id if self._placement else ""

    def first_token(self) -> None:
        """The first token has arrived now."""
        self.ttft_s = time.monotonic() - self._arrived_s

    def costs(self) -> dict[str, float | str]:
        """What the task cost, for its caller. Complete once `worker` is set."""
        worker = self.worker
        return {
            "queue_ms": worker.queue_s * 1000,
            "prefill_ms": worker.prefill_s * 1000,
            "compute_ms": worker.compute_s * 1000,
            "up_bytes": self.up_bytes,
            "down_bytes": self.down_bytes,
            "joules": worker.inference_joules + worker.idle_joules,
            "energy_source": worker.energy_source,
            # Separate, because a model computes it even where the node's own energy is measured.
            "transmission_joules": self._transmission_joules(),
            "quality": self._placement.arm.quality if self._placement else 0.0,
        }

    def attempt_failed(self, error: SkyshoreError) -> None:
        """The attempt failed and another may follow. The policy learns of it, the caller does not."""
        self._report(ending_of(error))
        self._placement = None

    def close(self, ending: TaskEnding) -> None:
        """The task has ended: report its outcome, and write the record of a task that is not a part of a job."""
        outcome = self._report(ending)
        kind = self._task.kind.value
        _requests(kind, ending.status.value).inc()
        _latency(kind).observe(outcome.latency_s)
        telemetry.OVERHEAD.observe(self.overhead_s)
        if self.ttft_s:
            telemetry.TTFT.observe(self.ttft_s)
        if not self._task.job_id:
            self._records.task(self._record(outcome, ending.code))

    def _record(self, outcome: Outcome, code: str) -> TaskRecord:
        """What `/v1/tasks/{id}` shows."""
        state = TaskState.FAILED if code else _STATES[outcome.status]
        return TaskRecord(
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

    def _transmission_joules(self) -> float:
        if self._placement is None:
            return 0.0
        return (self.up_bytes + self.down_bytes) * self._joules_per_byte(self._placement.arm.node_id)

    def _report(self, ending: TaskEnding) -> Outcome:
        arm = self._placement.arm if self._placement else None
        outcome = Outcome(
            task_id=self._task.task_id,
            arm_id=arm.arm_id if arm else "",
            node_id=arm.node_id if arm else "",
            status=ending.status,
            finished_at_s=time.time(),
            latency_s=time.monotonic() - self._arrived_s,
            deadline_s=self._task.deadline_s,
            ttft_s=self.ttft_s,
            gateway_s=self.overhead_s,
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
            transmission_joules=self._transmission_joules(),
            quality=arm.quality if arm and ending.status is OutcomeStatus.OK else 0.0,
            service_class=self._task.service_class,
            error=ending.message,
            worker=self.worker,
        )
        if arm:  # a task that was never placed tells the policy nothing
            self._records.outcome(outcome)
        return outcome
