"""Outcomes from the records of tasks that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.records import ENDED
from simulator.requests import frames_offered
from skyshore.domain.node import Arm
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import STATUSES
from skyshore.rules.records import NONE
from skyshore.workload.arrival import Arrival

ENERGY_SOURCE = "modelled:nodemodel"
NO_WORK = WorkerOutcome()


class Outcomes:
    """Makes outcomes as the live gateway would complete them."""

    def __init__(self, arms: Sequence[Arm]) -> None:
        """`arms` by number."""
        self._arms = arms

    @staticmethod
    def end(values: tuple[Any, ...]) -> dict[str, Any]:
        """The fields of an ENDED by name."""
        return dict(zip(ENDED.names or (), values, strict=True))

    def outcome(self, end: Mapping[str, Any], arrival: Arrival) -> Outcome:
        """Of a task that ended."""
        arm = self._arms[end["arm"]] if end["arm"] != NONE else None
        return _outcome(end, arrival, arm)

    def of_attempt(self, attempt: Mapping[str, Any], arrival: Arrival) -> Outcome:
        """Of an attempt, as the policy gets it; `attempt` are the fields of its ATTEMPT."""
        end = {
            **attempt,
            "latency_s": attempt["measured_s"],
            "up_bytes": attempt["sent_bytes"],
            "down_bytes": attempt["received_bytes"],
        }
        return _outcome(end, arrival, self._arms[attempt["arm"]])


def _outcome(end: Mapping[str, Any], arrival: Arrival, arm: Arm | None) -> Outcome:
    status, worker = STATUSES[end["status"]], NO_WORK
    if status is OutcomeStatus.OK:
        llm = arrival.kind is TaskKind.LLM
        worker = WorkerOutcome(
            queue_s=end["queued_s"],
            prefill_s=end["prefill_s"],
            compute_s=end["compute_s"],
            prompt_tokens=arrival.prompt_tokens if llm else 0,
            output_tokens=arrival.output_tokens if llm else 0,
            frames=0 if llm else frames_offered(arrival),
            inference_joules=end["inference_joules"],
            idle_joules=end["idle_joules"],
            energy_source=ENERGY_SOURCE,
        )
    return Outcome(
        task_id=arrival.request_id,
        arm_id=arm.arm_id if arm else "",
        node_id=arm.node_id if arm else "",
        status=status,
        finished_at_s=end["finished_s"],
        latency_s=end["latency_s"],
        deadline_s=arrival.deadline_s,
        ttft_s=end["ttft_s"],
        gateway_s=end["gateway_s"],
        up_bytes=int(end["up_bytes"]),
        down_bytes=int(end["down_bytes"]),
        transmission_joules=end["transmission_joules"],
        quality=arm.quality if arm else 0.0,
        service_class=arrival.service_class,
        worker=worker,
    )
