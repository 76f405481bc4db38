"""The SchedulerClient port over the mux."""

from __future__ import annotations

from collections.abc import Sequence

from skyshore.adapters.service_call import call_service
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.mux.client import MuxChannel
from skyshore.v1 import scheduler_service_pb2 as pb
from skyshore.wire.pairs import OUTCOME, PLACEMENT, PROFILE, TASK

PLACE = "/skyshore.v1.SchedulerService/Place"
REPORT_OUTCOME = "/skyshore.v1.SchedulerService/ReportOutcome"
GET_POLICY = "/skyshore.v1.SchedulerService/GetPolicy"
SET_POLICY = "/skyshore.v1.SchedulerService/SetPolicy"
SERVICE = "scheduler"


class MuxSchedulerClient:
    """Calls the scheduler at the other end of `channel`, which the caller closes."""

    def __init__(self, channel: MuxChannel) -> None:
        self._channel = channel

    async def place(
        self, task: Task, profile: TaskProfile, *, attempt: int = 1, avoid: Sequence[str] = ()
    ) -> Placement:
        """See SchedulerClient. NodeUnavailable also when the scheduler itself is away, NoAnswer when it is silent."""
        request = pb.PlaceRequest(
            task=TASK.to_proto(task), profile=PROFILE.to_proto(profile), attempt=attempt, avoid_node_ids=avoid
        )
        response = await call_service(
            self._channel, SERVICE, PLACE, request, pb.PlaceResponse, deadline_s=task.deadline_s
        )
        return PLACEMENT.from_proto(response, task_id=task.task_id, attempt=attempt)

    async def report_outcome(self, outcome: Outcome) -> None:
        """Send the outcome of a task."""
        request = pb.ReportOutcomeRequest(outcome=OUTCOME.to_proto(outcome))
        await call_service(self._channel, SERVICE, REPORT_OUTCOME, request, pb.ReportOutcomeResponse)

    async def policy(self) -> tuple[str, tuple[str, ...]]:
        """The policy in force, and the names of all policies."""
        response = await call_service(self._channel, SERVICE, GET_POLICY, pb.GetPolicyRequest(), pb.GetPolicyResponse)
        return response.policy, tuple(response.available)

    async def set_policy(self, name: str) -> None:
        """Put another policy in force. Raises NotFound for an unknown one."""
        request = pb.SetPolicyRequest(policy=name)
        await call_service(self._channel, SERVICE, SET_POLICY, request, pb.SetPolicyResponse)
