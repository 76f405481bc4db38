"""Server-sent events: the one writer for answers of language models and for the progress of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.responses import Response

from gateway.asgi import Receive, Scope, Send, WhileConnected, encode_headers
from gateway.errors import CallerGone, as_domain, error_object

_HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class EventStream:
    """Writes server-sent events. The status line goes out with `start`: an error before it keeps its status code."""

    def __init__(self, send: Send) -> None:
        self._send = send
        # Several choices of one request write here. Without the lock a slow caller could get an event before the head.
        self._lock = asyncio.Lock()
        self.started = False

    async def start(self, headers: Mapping[str, str]) -> None:
        """Send status and headers, once."""
        async with self._lock:
            if not self.started:
                self.started = True
                headers_sent = _HEAD + encode_headers(headers)
                await self._send({"type": "http.response.start", "status": 200, "headers": headers_sent})

    async def event(self, data: bytes, name: str = "") -> None:
        """Send one event; waits while the caller reads slowly. An empty `name` means the default, "message"."""
        field = b"event: " + name.encode() + b"\n" if name else b""
        async with self._lock:
            body = field + b"data: " + data + b"\n\n"
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def error(self, error: Exception) -> None:
        """Send `error` as an event: the status code is already sent."""
        await self.event(orjson.dumps(error_object(as_domain(error))))

    async def end(self) -> None:
        """Close the response."""
        await self._send({"type": "http.response.body", "body": b""})


class EventStreamResponse(Response):
    """A response of FastAPI routes whose events `produce` writes. It stops when the caller closes the connection."""

    def __init__(self, produce: Callable[[EventStream], Awaitable[None]]) -> None:
        super().__init__()
        self._produce = produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        events = EventStream(send)
        try:
            async with WhileConnected(receive):
                await events.start({})
                try:
                    await self._produce(events)
                except Exception as error:
                    await events.error(error)
                await events.end()
        except CallerGone:
            return
