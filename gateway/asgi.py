"""The parts of HTTP that the language-model routes need, directly on ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
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
"""Seconds before a watcher of the connection starts. Most short answers end earlier and need none."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Request headers by lower-case name. The last of repeated headers counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def is_foreign_page(scope: Scope, allowed: Collection[str]) -> bool:
    """Whether a web page of another site asks for a change.

    Browsers send some such requests without asking first, with whatever the user's machine can reach. They say where
    the page is from in `Origin`; other clients send none.
    """
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    origin = host = ""
    for name, value in scope["headers"]:
        if name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"host":
            host = value.decode("latin-1")
    return bool(origin) and origin.partition("://")[2] != host and origin not in allowed


async def read_json(headers: Mapping[str, str], receive: Receive, limit_bytes: int) -> bytes:
    """Read a complete JSON body.

    Raises:
        InvalidTask: the content type is not JSON.
        PayloadTooLarge: the body is over `limit_bytes`.
        CallerGone: the caller closed the connection.
    """
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise InvalidTask(f"send JSON with Content-Type: application/json, not '{kind}'", param="content-type")
    too_large = PayloadTooLarge(f"the body is over {limit_bytes} bytes; send a shorter prompt")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit_bytes:  # at once, before the body
        raise too_large
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
        raise too_large
    return body


class WhileConnected:
    """Cancels its block when the caller closes the connection; raises CallerGone then."""

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
        # If the block was cancelled for another reason as well, the CancelledError passes on.
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
    """Headers in the form of ASGI."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def send_json(send: Send, body: bytes, headers: Mapping[str, str], status: int = 200) -> None:
    """Send a complete JSON response."""
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head + encode_headers(headers)})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: Exception, headers: Mapping[str, str]) -> None:
    """Send `error` as a JSON response with its status code."""
    failure = as_domain(error)
    body = orjson.dumps(error_object(failure))
    await send_json(send, body, {**headers, **error_headers(failure)}, http_status(failure))
