"""The little of HTTP that the hot routes need, straight on ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import orjson

from gateway.errors import CallerGone, as_domain, error_headers, error_object
from skyshore.domain.errors import InvalidTask, PayloadTooLarge
from skyshore.runtime.status import http_status

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


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the caller closes the connection. Raises CallerGone then."""
    loop, block = asyncio.get_running_loop(), asyncio.current_task()
    assert block
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        block.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    timer = loop.call_later(WATCH_AFTER_S, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not gone or block.uncancel():
            raise  # somebody else wants us to stop, too
        raise CallerGone from None
    finally:
        timer.cancel()
        if watcher and not watcher.done():
            watcher.cancel()
            await asyncio.wait([watcher])


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


class EventStream:
    """Server-sent events; the head goes out with the first one, so that a failure before it keeps its status code."""

    def __init__(self, send: Send) -> None:
        self._send = send
        # Several choices of one request write here; a slow caller must not let their parts pass the head.
        self._turn = asyncio.Lock()
        self.started = False

    async def start(self, headers: Mapping[str, str]) -> None:
        """Send the head, once."""
        async with self._turn:
            if not self.started:
                self.started = True
                await self._send_head(headers)

    async def _send_head(self, headers: Mapping[str, str]) -> None:
        head = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await self._send({"type": "http.response.start", "status": 200, "headers": head + encode_headers(headers)})

    async def event(self, data: bytes) -> None:
        """Send one event; waits while the caller reads slowly."""
        async with self._turn:
            await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def end(self) -> None:
        """Close the answer."""
        await self._send({"type": "http.response.body", "body": b""})
