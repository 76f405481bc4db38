"""Limits of an HTTP connection: bytes and number of headers, and how slowly it may be written and read.

uvicorn has none of them: a client that sends one header for ever, or nothing at all, would keep its connection.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 1.0
"""From a refusal to the end of the connection, in which what still comes is dropped."""
TICK_S = 1.0
"""How often a connection is looked at."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of each connection, and of their number."""

    connections: int = 8192
    head_bytes: int = 64 * 1024
    """Of the request line and all headers."""
    headers: int = 100
    head_s: float = 15.0
    """From the connection, or from the first byte of a later request, to the end of its headers."""
    body_s: float = 20.0
    """After so long, a body must have come at `body_bytes_per_s` on average."""
    body_bytes_per_s: float = 1000.0
    write_s: float = 30.0
    """So long a client may read nothing while an answer waits for it."""


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    """The request is complete; uvicorn closes a connection that is idle after the answer."""


class _Refused(Exception):
    """Stops the parser."""


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol with `limits`; see `limited`."""

    limits: ClassVar[HttpLimits] = HttpLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._phase, self._since_s = _Phase.HEAD, self.loop.time()
        self._head_bytes = self._body_bytes = 0
        self._waited_s = self._stuck_s = 0.0
        self._refused = False
        self._refusal: tuple[HTTPStatus, str] | None = None
        self._timer = self.loop.call_later(TICK_S, self._tick)
        if len(self.connections) > self.limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._refused or self.transport.is_closing():
            return
        if self._phase is _Phase.ANSWER and (self.cycle is None or self.cycle.response_complete):
            self._begin_head()
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
        elif self._phase is _Phase.BODY:
            self._body_bytes += len(data)
        super().data_received(data)
        if self._phase is _Phase.HEAD and self._head_bytes > self.limits.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_large())

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        if self._phase is not _Phase.HEAD:
            self._begin_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See HttpToolsProtocol."""
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {self.limits.headers} headers")

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.head_bytes:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_large())
        self._phase, self._body_bytes, self._waited_s = _Phase.BODY, 0, 0.0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._phase = _Phase.ANSWER
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser refused."""
        status, message = self._refusal or (HTTPStatus.BAD_REQUEST, msg)
        self._refuse(status, message)

    def _begin_head(self) -> None:
        self._phase, self._head_bytes, self._since_s = _Phase.HEAD, 0, self.loop.time()

    def _tick(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._timer = self.loop.call_later(TICK_S, self._tick)
        limits = self.limits
        if self._phase is _Phase.HEAD and self.loop.time() - self._since_s > limits.head_s:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no complete request within {limits.head_s:g} s")
        elif self._phase is _Phase.BODY and not self.flow.read_paused:
            self._waited_s += TICK_S
            if self._waited_s > limits.body_s and self._body_bytes < limits.body_bytes_per_s * self._waited_s:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the body comes too slowly; send it again")
        self._stuck_s = self._stuck_s + TICK_S if self.flow.write_paused else 0.0
        if self._stuck_s > limits.write_s:
            self.transport.abort()

    def _too_large(self) -> str:
        return f"the request line and the headers are over {self.limits.head_bytes} bytes"

    def _stop(self, status: HTTPStatus, message: str) -> None:
        self._refusal = status, message
        raise _Refused

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer, if no answer has begun, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        self.transport.write(_answer(status, message))
        # Closing while bytes of the client are unread would reset the connection, and the answer would be lost.
        self.loop.call_later(LINGER_S, self.transport.close)


def limited(limits: HttpLimits) -> type[LimitedHttp]:
    """The protocol class with these limits, for `uvicorn.Config(http=...)`."""
    return type("LimitedHttp", (LimitedHttp,), {"limits": limits})


def _answer(status: HTTPStatus, message: str) -> bytes:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    error: dict[str, Any] = {"message": message, "type": kind, "code": status.name.lower(), "param": None}
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
