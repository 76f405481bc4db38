"""A service behind the mux whose calls wait, fail or count, as the request says; and calls to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from skyshore.domain.errors import InvalidTask, QueueFull
from skyshore.mux.client import MuxChannel
from skyshore.runtime.serve import GrpcService, RunningServer, grpc_server
from skyshore.v1 import scheduler_service_pb2_grpc
from skyshore.v1.outcome_pb2 import DecisionRecord
from skyshore.v1.scheduler_service_pb2 import (
    SetPolicyRequest,
    SetPolicyResponse,
    WatchDecisionsRequest,
    WatchDecisionsResponse,
)

SERVICE = "skyshore.v1.SchedulerService"
UNARY = f"/{SERVICE}/SetPolicy"
STREAM = f"/{SERVICE}/WatchDecisions"


class EchoServicer(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    """SetPolicy does what its word says; WatchDecisions counts to `backlog`."""

    def __init__(self) -> None:
        self.running = 0
        self.produced = 0
        self.changed = asyncio.Condition()
        self.remaining_s: float | None = None
        self.go = asyncio.Event()

    async def _track(self, by: int) -> None:
        async with self.changed:
            self.running += by
            self.changed.notify_all()

    async def until_running(self, count: int) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: self.running == count)

    async def SetPolicy(self, request: SetPolicyRequest, context: Any) -> SetPolicyResponse:  # noqa: N802
        self.remaining_s = context.time_remaining()
        await self._track(+1)
        try:
            match request.policy.split(":"):
                case ["hang"]:
                    await asyncio.Event().wait()
                case ["gate"]:
                    await self.go.wait()
                case ["sleep", seconds]:
                    await asyncio.sleep(float(seconds))
                case ["full"]:
                    raise QueueFull("no room", param="queue", retry_after_s=2.5)
                case ["bug"]:
                    raise ZeroDivisionError("secret detail")
                case ["abort"]:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "aborted")
                case ["cancel-self"]:
                    raise asyncio.CancelledError
            return SetPolicyResponse(policy=request.policy)
        finally:
            await self._track(-1)

    async def WatchDecisions(  # noqa: N802
        self, request: WatchDecisionsRequest, context: Any
    ) -> AsyncIterator[WatchDecisionsResponse]:
        await self._track(+1)
        try:
            for index in range(request.backlog):
                self.produced = index + 1
                yield WatchDecisionsResponse(decision=DecisionRecord(task_id=str(index)))
            if request.backlog == 13:
                raise InvalidTask("thirteen", param="backlog")
        finally:
            await self._track(-1)


@asynccontextmanager
async def serving(echo: EchoServicer, listen: str = "127.0.0.1:0") -> AsyncIterator[RunningServer]:
    service = GrpcService(SERVICE, scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server, echo)
    async with grpc_server([service], listen) as server:
        yield server


async def say(channel: MuxChannel, word: str, timeout_s: float | None = 60.0) -> str:
    reply = await channel.unary(UNARY, SetPolicyRequest(policy=word), SetPolicyResponse, timeout_s)
    return reply.policy


async def count(channel: MuxChannel, to: int, timeout_s: float | None = 60.0) -> list[int]:
    request = WatchDecisionsRequest(backlog=to)
    stream = channel.stream(STREAM, request, WatchDecisionsResponse, timeout_s)
    return [int(reply.decision.task_id) async for reply in stream]
