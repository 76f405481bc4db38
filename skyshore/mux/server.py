"""Server side of the mux: many short calls on one long gRPC stream. `mux_service.proto` gives the reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from skyshore.domain.errors import SkyshoreError
from skyshore.mux.coalescer import Coalescer
from skyshore.v1 import mux_service_pb2, mux_service_pb2_grpc
from skyshore.wire import status
from skyshore.wire.malformed import blamed

log = structlog.get_logger()

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

MAX_CALLS = 1024
"""Limit of open calls on one stream. More are rejected with RESOURCE_EXHAUSTED."""
REJECTION_RETRY_S = 0.1


class MethodTable:
    """Takes the place of a grpc server in the generated `add_XServicer_to_server`, and keeps the registered methods."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Do nothing: `add_registered_method_handlers` gets the same methods with their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Store each handler under its full method name."""
        for name, handler in handlers.items():
            self._handlers[f"/{service}/{name}"] = handler

    def find(self, method: str) -> Handler | None:
        """The handler of a unary or server-streaming method, or None. The mux carries no client streams."""
        handler = self._handlers.get(method)
        return None if handler is None or handler.request_streaming else handler


class CallContext:
    """The part of `grpc.aio.ServicerContext` that a muxed call supports."""

    def __init__(self, timeout_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at_s = None if timeout_s is None else self._loop.time() + timeout_s

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return None if self._ends_at_s is None else max(0.0, self._ends_at_s - self._loop.time())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Always empty: muxed calls carry no metadata."""
        return ()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
        """End the call with a status. The servicers of this project raise domain errors instead."""
        raise status.to_domain(code, details)


class _Credit:
    """Flow control of one streaming call: the replies that the caller can still take."""

    def __init__(self, initial: int) -> None:
        self._left = initial
        self._granted = asyncio.Event()

    def grant(self, count: int) -> None:
        self._left += count
        self._granted.set()

    async def take(self) -> None:
        while not self._left:
            self._granted.clear()
            await self._granted.wait()
        self._left -= 1


class _Call:
    """One running call."""

    def __init__(self, call_id: int, credit: int) -> None:
        self.call_id = call_id
        self.credit = _Credit(credit)
        self.task: asyncio.Task[None] | None = None


class _Connection:
    """One stream: its open calls and the frames that wait to be sent.

    The calls are child tasks of the reader of the stream, so they end with the stream for any reason.
    """

    def __init__(self, table: MethodTable, max_calls: int) -> None:
        self._table, self._max_calls = table, max_calls
        self._calls: dict[int, _Call] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._rejecting = False
        self.replies: Coalescer[mux_service_pb2.ReplyFrame] = Coalescer()

    async def run(self, requests: AsyncIterator[mux_service_pb2.ConnectRequest]) -> None:
        """Read the stream to its end; then cancel the open calls."""
        try:
            async with asyncio.TaskGroup() as group:
                async for message in requests:
                    for frame in message.frames:
                        self._handle(frame, group)
                for call in self._calls.values():
                    if call.task:
                        call.task.cancel()
        finally:
            self.replies.close()

    async def finish_calls(self) -> None:
        """Reject new calls and wait until no call is open."""
        self._rejecting = True
        await self._idle.wait()

    def _handle(self, frame: mux_service_pb2.CallFrame, group: asyncio.TaskGroup) -> None:
        action = frame.WhichOneof("action")
        if action == "start":
            self._start(frame.call_id, frame.start, group)
        elif (call := self._calls.get(frame.call_id)) is None:
            return  # the call ended while this frame was on its way
        elif action == "credit":
            call.credit.grant(frame.credit)
        elif action == "cancel" and call.task:
            call.task.cancel()

    def _start(self, call_id: int, start: mux_service_pb2.CallStart, group: asyncio.TaskGroup) -> None:
        handler = self._table.find(start.method)
        if self._rejecting:
            self._end(call_id, grpc.StatusCode.UNAVAILABLE, "the server is stopping; use another one")
        elif len(self._calls) >= self._max_calls:
            self._end(
                call_id,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._max_calls} calls are open on this connection",
                retry_after_s=REJECTION_RETRY_S,
            )
        elif handler is None:
            self._end(call_id, grpc.StatusCode.UNIMPLEMENTED, f"no unary or server-streaming method '{start.method}'")
        else:
            call = _Call(call_id, start.credit)
            self._calls[call_id] = call
            self._idle.clear()
            call.task = group.create_task(self._run_call(call, handler, start))
            call.task.add_done_callback(lambda _: self._forget(call_id))

    def _forget(self, call_id: int) -> None:
        del self._calls[call_id]
        if not self._calls:
            self._idle.set()

    async def _run_call(self, call: _Call, handler: Handler, start: mux_service_pb2.CallStart) -> None:
        timeout_s = start.timeout_ms / 1000 if start.timeout_ms else None
        try:
            async with asyncio.timeout(timeout_s) as limit:
                await self._answer(call, handler, start.request, CallContext(timeout_s))
        except SkyshoreError as error:
            self._end_with(call.call_id, error)
        except asyncio.CancelledError:
            if call.task and call.task.cancelling():
                raise  # the caller cancelled or the stream ended: no one waits for a status
            self._end(call.call_id, grpc.StatusCode.CANCELLED, "the method cancelled itself")
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                self._end(call.call_id, grpc.StatusCode.DEADLINE_EXCEEDED, f"not done within {timeout_s:g} s")
                return
            log.exception("unhandled error", method=start.method)
            self._end(call.call_id, grpc.StatusCode.INTERNAL, "internal error; the server's log has the details")

    async def _answer(self, call: _Call, handler: Handler, payload: bytes, context: CallContext) -> None:
        behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
        decode: Any = handler.request_deserializer
        request = None
        try:
            request = decode(payload)
            await self._run(call, handler, behaviour(request, context))
        except Exception as error:
            found = blamed(error, request)
            if found is None:
                raise
            log.warning("malformed message", problem=found.message, error=repr(error)[:200])
            raise found from error

    async def _run(self, call: _Call, handler: Handler, running: Any) -> None:
        encode: Any = handler.response_serializer
        if not handler.response_streaming:
            reply = await running
            self.replies.put(mux_service_pb2.ReplyFrame(call_id=call.call_id, final_reply=encode(reply)))
            return
        async with aclosing(running) as replies:
            async for reply in replies:
                await call.credit.take()
                await self.replies.room()
                self.replies.put(mux_service_pb2.ReplyFrame(call_id=call.call_id, reply=encode(reply)))
        self._end(call.call_id, grpc.StatusCode.OK, "")

    def _end_with(self, call_id: int, error: SkyshoreError) -> None:
        code = status.grpc_status(error)
        self._end(
            call_id, code, error.message, word=error.code, retry_after_s=error.retry_after_s or 0.0, param=error.param
        )

    def _end(
        self,
        call_id: int,
        code: grpc.StatusCode,
        message: str,
        *,
        word: str = "",
        retry_after_s: float = 0.0,
        param: str | None = None,
    ) -> None:
        ended = mux_service_pb2.CallStatus(
            code=code.value[0], message=message, error_code=word, retry_after_s=retry_after_s, param=param or ""
        )
        self.replies.put(mux_service_pb2.ReplyFrame(call_id=call_id, status=ended))


class MuxServicer(mux_service_pb2_grpc.MuxServiceServicer):
    """Runs the calls of all streams. Their tasks end at the latest in `drain`."""

    def __init__(self, table: MethodTable, max_calls: int = MAX_CALLS) -> None:
        self._table, self._max_calls = table, max_calls
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._draining = False

    async def Connect(  # noqa: N802 - named by the proto
        self, request_iterator: AsyncIterator[mux_service_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[mux_service_pb2.ConnectResponse]:
        """Run calls until the caller closes the stream or the server drains."""
        if self._draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping; use another one")
        connection = _Connection(self._table, self._max_calls)
        reader = asyncio.create_task(connection.run(request_iterator))
        self._connections[reader] = connection
        reader.add_done_callback(self._reader_ended)
        # If the caller disappears, gRPC drops this generator unclosed. The reader then sees the end of its stream.
        while batch := await connection.replies.take():
            yield mux_service_pb2.ConnectResponse(frames=batch)

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        del self._connections[reader]
        if not reader.cancelled() and (error := reader.exception()):
            log.error("mux stream failed", error=repr(error))

    async def drain(self, grace_s: float) -> None:
        """Reject new calls, let running ones finish within `grace_s`, cancel the others and end every stream."""
        self._draining = True
        connections = dict(self._connections)
        finishing = [asyncio.create_task(connection.finish_calls()) for connection in connections.values()]
        if finishing:
            _, late = await asyncio.wait(finishing, timeout=grace_s)
            for task in (*late, *connections):
                task.cancel()
            await asyncio.gather(*finishing, *connections, return_exceptions=True)
