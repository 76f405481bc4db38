"""SchedulerService: translation only."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from services.scheduler.loop import SchedulerLoop
from skyshore.domain.errors import InvalidTask
from skyshore.policies.registry import POLICIES
from skyshore.v1 import scheduler_service_pb2 as pb
from skyshore.v1 import scheduler_service_pb2_grpc
from skyshore.wire.pairs import DECISION, OUTCOME, PLACEMENT, PROFILE, TASK

Rpc = Any  # the context is not used: errors are raised, deadlines cancel


class SchedulerServicer(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    """Calls → SchedulerLoop."""

    def __init__(self, loop: SchedulerLoop) -> None:
        self._loop = loop

    async def Place(self, request: pb.PlaceRequest, context: Rpc) -> pb.PlaceResponse:
        """See the proto."""
        placement = await self._loop.place(
            TASK.from_proto(request.task),
            PROFILE.from_proto(request.profile),
            max(request.attempt, 1),
            request.avoid_node_ids,
        )
        return PLACEMENT.to_proto(placement)

    async def ReportOutcome(self, request: pb.ReportOutcomeRequest, context: Rpc) -> pb.ReportOutcomeResponse:
        """See the proto."""
        if not request.outcome.task_id or not request.outcome.status:
            raise InvalidTask("an outcome needs a task_id and a status", param="outcome")
        await self._loop.report(OUTCOME.from_proto(request.outcome))
        return pb.ReportOutcomeResponse()

    async def WatchDecisions(
        self, request: pb.WatchDecisionsRequest, context: Rpc
    ) -> AsyncIterator[pb.WatchDecisionsResponse]:
        """See the proto."""
        async for record in self._loop.watchers.watch(request.backlog):
            yield pb.WatchDecisionsResponse(decision=DECISION.to_proto(record))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Rpc) -> pb.GetPolicyResponse:
        """See the proto."""
        return pb.GetPolicyResponse(policy=self._loop.policy, available=sorted(POLICIES))

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: Rpc) -> pb.SetPolicyResponse:
        """See the proto."""
        await self._loop.set_policy(request.policy)
        return pb.SetPolicyResponse(policy=self._loop.policy)
