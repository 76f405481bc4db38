"""Client side of the mux: one channel to one process, for any number of concurrent calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Protocol, Self, TypeVar

import grpc
import structlog

from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, SkyshoreError
from skyshore.mux.coalescer import Coalescer
from skyshore.mux.grpc_options import CLIENT_OPTIONS
from skyshore.v1 import mux_service_pb2, mux_service_pb2_grpc
from skyshore.wire import status

STREAM_WINDOW = 64
"""Unread replies of one streaming call that may wait here. The server pauses the call beyond it."""

LINGER_S = 0.002
"""Longest time that frames wait for the next message of the server, so that later frames join their message.

A message costs about 0.2 ms of CPU at each end, whatever its number of frames; a frame in a full message costs a tenth.
As in Nagle's algorithm, a full message does not wait, and no frame waits while every sent message is answered.
"""

log = structlog.get_logger()


class WireMessage(Protocol):
    """The methods of a protobuf message that the mux needs."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The message as bytes."""
        ...

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802 - protobuf's name
        """The message of these bytes."""
        ...


ReplyT = TypeVar("ReplyT", bound=WireMessage)


class _OpenCall:
    """One call: its unread replies, and the error that ended it."""

    def __init__(self, connection: _Connection, call_id: int, method: str, timeout_s: float | None) -> None:
        self.replies: deque[bytes] = deque()
        self.ended = False
        self._connection, self._call_id, self._method, self._timeout_s = connection, call_id, method, timeout_s
        self._error: SkyshoreError | None = None
        self._server_done = False
        self._read_since_grant = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer = None if timeout_s is None else asyncio.get_running_loop().call_later(timeout_s, self._expire)

    def push(self, reply: bytes) -> None:
        """A reply arrived."""
        if len(self.replies) >= STREAM_WINDOW:
            self._end(Internal(f"{self._method} sent more replies than it had credit for"))
            return
        self.replies.append(reply)
        self._wake()

    def end(self, error: SkyshoreError | None) -> None:
        """The server or the connection ended the call."""
        self._server_done = True
        self._end(error)

    async def changed(self) -> None:
        """Wait for a reply or the end. One reader only."""
        if not self.replies and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def read(self) -> bytes:
        """Take the oldest reply. Grant new credit to the server when half of the window is free."""
        self._read_since_grant += 1
        if self._read_since_grant >= STREAM_WINDOW // 2 and not self.ended:
            self._connection.send(mux_service_pb2.CallFrame(call_id=self._call_id, credit=self._read_since_grant))
            self._read_since_grant = 0
        return self.replies.popleft()

    def raise_if_failed(self) -> None:
        """Raise the error that ended the call, if there is one."""
        if self._error:
            raise self._error

    def close(self) -> None:
        """Forget the call; cancel it on the server if it still runs there. Closing again does nothing."""
        if self._timer:
            self._timer.cancel()
        if self._connection.forget(self._call_id) and not self._server_done:
            self._connection.send(mux_service_pb2.CallFrame(call_id=self._call_id, cancel=True))

    def _expire(self) -> None:
        self._end(DeadlineExceeded(f"{self._method} was not done within {self._timeout_s:g} s"))

    def _end(self, error: SkyshoreError | None) -> None:
        if not self.ended:
            self.ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection:
    """One stream. After its end a new connection is made."""

    def __init__(self, target: str, name: str, stub: mux_service_pb2_grpc.MuxServiceAsyncStub) -> None:
        self._target, self._name, self._stub = target, name, stub
        self._frames: Coalescer[mux_service_pb2.CallFrame] = Coalescer()
        self._calls: dict[int, _OpenCall] = {}
        self._last_call_id = 0
        self._may_send = asyncio.Event()
        self._may_send.set()
        self.closed = False

    async def run(self) -> None:
        """Deliver replies until the stream ends, then fail the open calls."""
        reason = "it closed the connection"
        stream = self._stub.Connect(self._requests())
        try:
            async for message in stream:
                self._may_send.set()
                for frame in message.frames:
                    self._deliver(frame)
        except grpc.aio.AioRpcError as error:
            reason = error.details() or error.code().name
        finally:
            self.closed = True
            stream.cancel()
            self._frames.close()
            self._may_send.set()
            for call in self._calls.values():
                call.end(NodeUnavailable(f"{self._name} cannot be reached; try again", retry_after_s=1.0))
            if self._calls:  # callers must not see the address
                log.warning("connection lost", name=self._name, target=self._target, why=reason, calls=len(self._calls))

    def start(self, method: str, payload: bytes, timeout_s: float | None) -> _OpenCall:
        """Send a request."""
        self._last_call_id += 1
        timeout_ms = 0 if timeout_s is None else max(1, int(timeout_s * 1000))
        start = mux_service_pb2.CallStart(method=method, request=payload, timeout_ms=timeout_ms, credit=STREAM_WINDOW)
        call = self._calls[self._last_call_id] = _OpenCall(self, self._last_call_id, method, timeout_s)
        self.send(mux_service_pb2.CallFrame(call_id=self._last_call_id, start=start))
        return call

    def send(self, frame: mux_service_pb2.CallFrame) -> None:
        """Queue a frame. It is sent together with the other frames of this loop iteration."""
        self._frames.put(frame)

    def forget(self, call_id: int) -> bool:
        """Drop all later frames of a call. Returns whether the call was known."""
        return self._calls.pop(call_id, None) is not None

    async def _requests(self) -> AsyncIterator[mux_service_pb2.ConnectRequest]:
        while batch := await self._next_batch():
            yield mux_service_pb2.ConnectRequest(frames=batch)

    async def _next_batch(self) -> list[mux_service_pb2.CallFrame]:
        await self._frames.filled()
        if not self._may_send.is_set() and not self._frames.full:
            timer = asyncio.get_running_loop().call_later(LINGER_S, self._may_send.set)
            await self._may_send.wait()
            timer.cancel()
        self._may_send.clear()
        return await self._frames.take()

    def _deliver(self, frame: mux_service_pb2.ReplyFrame) -> None:
        call = self._calls.get(frame.call_id)
        if call is None:
            return
        event = frame.WhichOneof("event")
        if event == "status":
            call.end(_error_of(frame.status))
        elif event == "reply":
            call.push(frame.reply)
        else:
            call.push(frame.final_reply)
            call.end(None)


def _error_of(ended: mux_service_pb2.CallStatus) -> SkyshoreError | None:
    if ended.code == grpc.StatusCode.OK.value[0]:
        return None
    return status.to_domain(
        status.STATUS_BY_NUMBER.get(ended.code, grpc.StatusCode.UNKNOWN),
        ended.message,
        word=ended.error_code,
        retry_after_s=ended.retry_after_s or None,
        param=ended.param or None,
    )


class MuxStream(Generic[ReplyT]):
    """Replies of one call, in order. It ends when it raises; closing it earlier cancels the call on the server.

    A class and not an async generator: the event loop registers every generator, which is most of its cost.
    """

    def __init__(self, call: _OpenCall, response_type: type[ReplyT]) -> None:
        self._call, self._response_type = call, response_type

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplyT:
        """The next reply. Raises the error that ended the call, or StopAsyncIteration after a success."""
        call = self._call
        try:
            await call.changed()
            if call.replies:
                return self._response_type.FromString(call.read())
            call.raise_if_failed()
            raise StopAsyncIteration
        except BaseException:
            call.close()
            raise

    async def aclose(self) -> None:
        """Cancel the call, if it still runs."""
        self._call.close()


class MuxChannel:
    """Calls methods of the process at `target` (host:port). Connects at the first call, and again after a failure.

    While the process is away, calls fail at once with `NodeUnavailable`. The gRPC channel limits the rate of attempts.
    """

    def __init__(self, target: str, name: str = "the other process") -> None:
        """`name` is what callers read in messages, in place of the address."""
        self.target, self._name = target, name
        self._channel = grpc.aio.insecure_channel(target, options=CLIENT_OPTIONS)
        self._stub: mux_service_pb2_grpc.MuxServiceAsyncStub = mux_service_pb2_grpc.MuxServiceStub(self._channel)
        self._connection: _Connection | None = None
        self._runner: asyncio.Task[None] | None = None

    async def unary(
        self, method: str, request: WireMessage, response_type: type[ReplyT], timeout_s: float | None
    ) -> ReplyT:
        """One request, one reply. Cancelling the awaiting task cancels the call on the server.

        Raises:
            SkyshoreError: the error of the method; `DeadlineExceeded` after `timeout_s`; `NodeUnavailable` when the
                process cannot be reached or ends before it replied.
        """
        call = self._connected().start(method, request.SerializeToString(), timeout_s)
        try:
            await call.changed()
            if not call.replies:
                call.raise_if_failed()
                raise Internal(f"{method} on {self.target} ended without a reply")
            return response_type.FromString(call.read())
        finally:
            call.close()

    def stream(
        self, method: str, request: WireMessage, response_type: type[ReplyT], timeout_s: float | None
    ) -> MuxStream[ReplyT]:
        """One request, many replies. Errors are those of `unary`, after the replies that came before."""
        call = self._connected().start(method, request.SerializeToString(), timeout_s)
        return MuxStream(call, response_type)

    async def close(self) -> None:
        """Drop the connection; calls still open fail with `NodeUnavailable`."""
        if self._runner:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        await self._channel.close()

    def _connected(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            self._connection = _Connection(self.target, self._name, self._stub)
            self._runner = asyncio.create_task(self._connection.run())
        return self._connection
