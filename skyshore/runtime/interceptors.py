"""Maps the errors of all Skyshore methods to a gRPC status, so that servicers need not do it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from skyshore.domain.errors import SkyshoreError
from skyshore.wire import status
from skyshore.wire.malformed import blamed

log = structlog.get_logger()

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def _careful(decode: Any) -> Any:
    """Hand the failure to decode to the method's guard: gRPC itself would answer INTERNAL and log a traceback."""

    def decode_or_error(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return error

    return decode_or_error


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, DecodeError):
            raise request
        yield request


async def _abort(context: Context, method: str, error: Exception, request: object) -> NoReturn:
    if found := blamed(error, request):
        log.warning("malformed message", method=method, problem=found.message, error=repr(error)[:200])
        error = found
    if isinstance(error, SkyshoreError):
        await context.abort(status.grpc_status(error), error.message, status.trailing_metadata(error))
    log.exception("unhandled error", method=method)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the details")
    raise AssertionError("abort returned")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods whose names start with `prefix`; health and reflection stay unchanged."""

    def __init__(self, prefix: str = "/skyshore.v1.") -> None:
        self._prefix = prefix

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return a handler that turns every exception into a status."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        if handler.response_streaming:
            return _wrap_streaming(handler, handler_call_details.method)
        return _wrap_unary(handler, handler_call_details.method)


def _wrap_unary(handler: Handler, method: str) -> Handler:
    behaviour: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def guarded(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, DecodeError):
                raise request
            given = _checked(request) if handler.request_streaming else request
            return await behaviour(given, context)
        except Exception as error:
            await _abort(context, method, error, request)

    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(guarded, _careful(handler.request_deserializer), handler.response_serializer)


def _wrap_streaming(handler: Handler, method: str) -> Handler:
    behaviour: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            # Close it at once when the call is cancelled, not when it is garbage-collected.
            if isinstance(request, DecodeError):
                raise request
            given = _checked(request) if handler.request_streaming else request
            async with aclosing(behaviour(given, context)) as replies:
                async for reply in replies:
                    yield reply
        except Exception as error:
            await _abort(context, method, error, request)

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(guarded, _careful(handler.request_deserializer), handler.response_serializer)
