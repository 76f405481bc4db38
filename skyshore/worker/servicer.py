"""WorkerService: translates between messages and the executor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from skyshore.domain.errors import InvalidTask
from skyshore.domain.video import EncodedFrame
from skyshore.v1 import worker_service_pb2, worker_service_pb2_grpc
from skyshore.wire.pairs import FRAME, LLM_EVENT, LLM_INPUT, SEGMENT, SEGMENT_EVENT, TASK
from skyshore.wire.status import BEGUN
from skyshore.worker.executor import WorkerExecutor

SERVICE = "skyshore.v1.WorkerService"

Context = grpc.aio.ServicerContext[Any, Any]


class WorkerServicer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Translates only. Domain errors pass through: the mux and the interceptor turn them into a status."""

    def __init__(self, executor: WorkerExecutor) -> None:
        self._executor = executor

    async def Execute(  # noqa: N802 - the method's name on the wire
        self, request: worker_service_pb2.ExecuteRequest, context: Context
    ) -> AsyncIterator[worker_service_pb2.ExecuteResponse]:
        """Answer an LLM task."""
        task, prompt = TASK.from_proto(request.task), LLM_INPUT.from_proto(request.llm)
        async with aclosing(self._executor.execute(task, request.arm_id, prompt)) as events:
            async for event in events:
                yield LLM_EVENT.to_proto(event)

    async def ExecuteSegment(  # noqa: N802 - the method's name on the wire
        self, request_iterator: AsyncIterator[worker_service_pb2.ExecuteSegmentRequest], context: Context
    ) -> AsyncIterator[worker_service_pb2.ExecuteSegmentResponse]:
        """Run one segment, or classify one clip."""
        parts = aiter(request_iterator)
        first = await anext(parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidTask("the first message of a segment must be its header", param="header")
        task, info = TASK.from_proto(first.header.task), SEGMENT.from_proto(first.header.info)
        async with aclosing(
            self._executor.execute_segment(task, first.header.arm_id, info, _frames(parts, context))
        ) as events:
            async for event in events:
                yield SEGMENT_EVENT.to_proto(event)


async def _frames(
    parts: AsyncIterator[worker_service_pb2.ExecuteSegmentRequest], context: Context
) -> AsyncIterator[EncodedFrame]:
    await context.send_initial_metadata(BEGUN)  # the engine has admitted the segment: it asks for frames
    async for part in parts:
        if part.WhichOneof("part") != "frame":
            raise InvalidTask("after the header a segment holds frames only", param="frame")
        yield FRAME.from_proto(part.frame)
