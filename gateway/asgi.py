"""The little of HTTP that the hot routes need, straight on ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import orjson

from gateway.errors import CallerGone, as_domain, error_headers, error_object
from skyshore.domain.errors import InvalidTask, PayloadTooLarge
from skyshore.wire.status import http_status

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

WATCH_AFTER_S = 0.02
"""Most short answers are out before this, and never pay for a task that watches their caller."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Request headers by lower-case name; of a repeated one the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_json(headers: Mapping[str, str], receive: Receive, limit_bytes: int) -> bytes:
    """Read a JSON body whole.

    Raises:
        InvalidTask: it calls itself something else than JSON.
        PayloadTooLarge: it is over `limit_bytes`.
        CallerGone: the caller left in the middle of it.
    """
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise InvalidTask(f"send JSON with Content-Type: application/json, not '{kind}'", param="content-type")
    event = await receive()
    body: bytes = event.get("body", b"")
    while event.get("more_body"):
        if len(body) > limit_bytes:
            break
        event = await receive()
        body += event.get("body", b"")
    if event["type"] == "http.disconnect":
        raise CallerGone
    if len(body) > limit_bytes:
        raise PayloadTooLarge(f"the body is over {limit_bytes} bytes; send a shorter prompt")
    return body


class WhileConnected:
    """Cancels its block when the caller closes the connection, and raises CallerGone then."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        block = asyncio.current_task()
        assert block
        self._block = block
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if self._watcher and not self._watcher.done():
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        # Somebody else may want the block to stop, too; then it is theirs to say why.
        if kind is asyncio.CancelledError and self._gone and not self._block.uncancel():
            raise CallerGone from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._block.cancel()


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def send_json(send: Send, body: bytes, headers: Mapping[str, str], status: int = 200) -> None:
    """Send a whole JSON answer."""
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head + encode_headers(headers)})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: Exception, headers: Mapping[str, str]) -> None:
    """Send a failure."""
    failure = as_domain(error)
    body = orjson.dumps(error_object(failure))
    await send_json(send, body, {**headers, **error_headers(failure)}, http_status(failure))
