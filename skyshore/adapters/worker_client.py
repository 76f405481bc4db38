"""The gateway's view of one node: text over the mux, video segments over plain gRPC client streaming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine
from contextlib import suppress
from typing import Any, Self

import grpc

from skyshore.domain.errors import NodeDied, NodeUnavailable, SkyshoreError
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import EncodedFrame, SegmentEvent, SegmentInfo
from skyshore.mux.client import MuxChannel, MuxStream
from skyshore.mux.grpc_options import CLIENT_OPTIONS
from skyshore.v1 import worker_service_pb2, worker_service_pb2_grpc
from skyshore.wire import status
from skyshore.wire.pairs import FRAME, LLM_EVENT, LLM_INPUT, SEGMENT, SEGMENT_EVENT, TASK

EXECUTE = "/skyshore.v1.WorkerService/Execute"


class GrpcWorkerClient:
    """Runs tasks on the node at `address` (host:port). Connects at the first call."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.open_calls = 0
        self._closed = False
        self._mux = MuxChannel(address, "the node")
        # Segments are large; on a connection of their own they never delay tokens.
        self._bulk = grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
        self._stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = worker_service_pb2_grpc.WorkerServiceStub(
            self._bulk
        )

    def execute(self, task: Task, arm_id: str, request: LlmInput) -> LlmEvents:
        """Run an LLM task; `task.deadline_s` counts from now. See `skyshore.ports.WorkerClient.execute`."""
        message = worker_service_pb2.ExecuteRequest(
            task=TASK.to_proto(task), arm_id=arm_id, llm=LLM_INPUT.to_proto(request)
        )
        replies = self._mux.stream(EXECUTE, message, worker_service_pb2.ExecuteResponse, task.deadline_s)
        return LlmEvents(self, replies)

    async def execute_segment(
        self, task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncGenerator[SegmentEvent]:
        """Run one video segment; see `skyshore.ports.WorkerClient.execute_segment`.

        An error that `frames` raises ends the call and is raised here. NodeUnavailable: the node had not begun.
        """
        sending_failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = self._stub.ExecuteSegment(
            _segment_messages(task, arm_id, info, frames, sending_failed), timeout=task.deadline_s
        )
        sending_failed.add_done_callback(lambda _: call.cancel())
        server_status = _ServerStatus(call)
        metadata = asyncio.ensure_future(call.initial_metadata())
        self.open_calls += 1
        try:
            async for reply in call:
                yield SEGMENT_EVENT.from_proto(reply)
        except grpc.aio.AioRpcError as error:
            if sending_failed.done():
                sending_failed.result()
            raise _lost_if_begun(await server_status.domain_error(error), metadata) from error
        except asyncio.CancelledError:
            if sending_failed.done():
                sending_failed.result()
            if self._closed and not _asked_to_stop():  # gRPC tells a closed channel's readers so, too
                closed = NodeUnavailable("the connection to the node was closed", retry_after_s=1.0)
                raise _lost_if_begun(closed, metadata) from None
            raise
        finally:
            self.open_calls -= 1
            sending_failed.cancel()
            metadata.cancel()

    async def close(self) -> None:
        """Drop the connections; running calls fail with `NodeUnavailable`."""
        self._closed = True
        await self._mux.close()
        await self._bulk.close()


async def _segment_messages(
    task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame], failed: asyncio.Future[None]
) -> AsyncIterator[worker_service_pb2.ExecuteSegmentRequest]:
    header = worker_service_pb2.SegmentHeader(task=TASK.to_proto(task), arm_id=arm_id, info=SEGMENT.to_proto(info))
    yield worker_service_pb2.ExecuteSegmentRequest(header=header)
    try:
        async for frame in frames:
            yield worker_service_pb2.ExecuteSegmentRequest(frame=FRAME.to_proto(frame))
    except Exception as error:
        # gRPC would log it and send half a segment as if it were whole; the reading side raises it instead.
        if not failed.done():
            failed.set_exception(error)


def _lost_if_begun(error: SkyshoreError, metadata: asyncio.Future[Any]) -> SkyshoreError:
    """NodeDied instead of NodeUnavailable if the node had sent `status.BEGUN` by then."""
    seen = metadata.done() and not metadata.cancelled() and not metadata.exception() and metadata.result()
    if type(error) is NodeUnavailable and seen and status.BEGUN[0] in tuple(seen):
        return NodeDied(error.message, retry_after_s=error.retry_after_s)
    return error


def _asked_to_stop() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class LlmEvents:
    """Events of one LLM task. Close it when you stop early, as a generator; `MuxStream` says why it is a class."""

    def __init__(self, client: GrpcWorkerClient, replies: MuxStream[worker_service_pb2.ExecuteResponse]) -> None:
        self._client, self._replies, self._open = client, replies, True
        client.open_calls += 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk | WorkerOutcome:
        """The next event."""
        try:
            reply = await anext(self._replies)
        except BaseException:
            self._end()
            raise
        event: TokenChunk | WorkerOutcome = LLM_EVENT.from_proto(reply)
        return event

    async def aclose(self) -> None:
        """Cancel the task on the node, if it still runs."""
        self._end()
        await self._replies.aclose()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._client.open_calls -= 1


CORE_FAILURE = "Internal error from Core"


class _ServerStatus:
    """Remembers the status the server sent.

    When the server ends a call that still sends, grpc.aio reports the failed write as INTERNAL instead, before or after
    the true status is in (grpc/grpc#36066).
    """

    def __init__(self, call: Any) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        self._arrived = asyncio.Event()
        call.add_done_callback(self._take)

    def _take(self, call: Any) -> None:
        code, details, trailing = (_at_once(part()) for part in (call.code, call.details, call.trailing_metadata))
        if details != CORE_FAILURE:
            self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)
            self._arrived.set()

    async def domain_error(self, seen: grpc.aio.AioRpcError) -> SkyshoreError:
        """The server's own error, or `seen` if it sent none within a second."""
        if seen.details() == CORE_FAILURE:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), 1.0)
        return status.from_rpc_error(self._error or seen)


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:
    """Value of a coroutine that returns without waiting, as those of a finished call do."""
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a finished call made its callback wait")


class WorkerPool:
    """One client per node address, made when first asked for."""

    def __init__(self) -> None:
        self._clients: dict[str, GrpcWorkerClient] = {}

    def client(self, address: str) -> GrpcWorkerClient:
        """The client of the node at `address`."""
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = GrpcWorkerClient(address)
        return client

    async def keep(self, addresses: Collection[str]) -> None:
        """Close idle clients of nodes that are not at any of `addresses`: they left, or came back elsewhere."""
        for address in [a for a, client in self._clients.items() if a not in addresses and not client.open_calls]:
            await self._clients.pop(address).close()

    def busy(self) -> set[str]:
        """Addresses with open calls."""
        return {address for address, client in self._clients.items() if client.open_calls}

    async def give_up(self, address: str) -> None:
        """Close the client of a node that is gone; its running calls fail with `NodeUnavailable`."""
        if client := self._clients.pop(address, None):
            await client.close()

    async def close(self) -> None:
        """Close every client."""
        await self.keep(())
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
