"""A small HTTP/1.1 client for load: raw asyncio streams, httptools for parsing, no limit of connections.

Chosen by measured client cost (requests per CPU-second on loopback: httpx 0.2–1 thousand, aiohttp 9–10, raw streams
over 50), because a load client that is busy with itself measures itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httptools

READ_BYTES = 1 << 16


class ConnectionLost(OSError):
    """The server closed the connection before the response was complete, or did not send HTTP."""


class _Parser:
    """Callbacks of httptools, collected."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.headers_complete = self.complete = self.keep_alive = False
        self.http: httptools.HttpResponseParser | None = None

    @property
    def ends_with_connection(self) -> bool:
        """A body without a length lasts until the connection closes (RFC 9112, 6.3)."""
        return self.headers_complete and not {"content-length", "transfer-encoding"} & self.headers.keys()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.headers_complete = True
        assert self.http is not None
        self.keep_alive = self.http.should_keep_alive()  # httptools drops it once the message is complete

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True


class Response:
    """Status and headers are there; the body comes as it arrives."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.parser.headers

    @property
    def received_bytes(self) -> int:
        """Bytes off the socket so far, head included."""
        return self._connection.received_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """Body as it arrives, transfer encoding removed.

        Raises:
            ConnectionLost: it ended too early.
        """
        parser = self._connection.parser
        while True:
            if parser.body:
                data = b"".join(parser.body)
                parser.body.clear()
                yield data
            elif parser.complete:
                return
            else:
                await self._connection.read_more()

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])


class _Connection:
    """One socket and the response now on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.used = False
        self.begin()

    def begin(self) -> None:
        self.parser = _Parser()
        self._http = self.parser.http = httptools.HttpResponseParser(self.parser)
        self.received_bytes = 0

    @property
    def status(self) -> int:
        return int(self._http.get_status_code())

    @property
    def reusable(self) -> bool:
        whole = self.parser.complete and self.parser.keep_alive
        return whole and not self._reader.at_eof() and not self._writer.is_closing()

    async def send(self, head: bytes, body: Sequence[bytes]) -> None:
        self._writer.write(head)
        for part in body:
            self._writer.write(part)
            await self._writer.drain()

    async def read_more(self) -> None:
        data = await self._reader.read(READ_BYTES)
        self.received_bytes += len(data)
        if data:
            try:
                self._http.feed_data(data)
            except httptools.HttpParserError as error:
                raise ConnectionLost(f"the server does not speak HTTP/1.1: {error}") from error
        elif self.parser.ends_with_connection:
            self.parser.complete = True
        elif not self.parser.complete:
            raise ConnectionLost("the server closed the connection before the response was complete")

    def close(self) -> None:
        self._writer.close()


class HttpClient:
    """Talks to one server. The number of connections is not limited: a limit would turn open loop into closed loop."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is not an http:// or https:// address")
        self._host, self._netloc, self._prefix = parts.hostname, parts.netloc, parts.path.rstrip("/")
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[_Connection] = []

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Sequence[bytes] = ()
    ) -> AsyncIterator[Response]:
        """Send a request and give its response once the head is there; leaving early closes the connection.

        Raises:
            OSError: no connection, or it broke (`ConnectionLost`).
        """
        head = self._head(method, path, headers or {}, sum(map(len, body)))
        connection = await self._exchange(head, body)
        try:
            yield Response(connection)
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Drop the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, head: bytes, body: Sequence[bytes]) -> _Connection:
        while True:
            connection = await self._connect()
            reused, connection.used = connection.used, True
            try:
                await connection.send(head, body)
                while not connection.parser.headers_complete:
                    await connection.read_more()
                return connection
            except OSError:
                connection.close()
                # A server may close an idle connection just as it is reused: nothing was answered, so send again.
                if not reused or connection.received_bytes:
                    raise
            except BaseException:
                connection.close()
                raise

    async def _connect(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                connection.begin()
                return connection
            connection.close()
        return _Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"host: {self._netloc}"]
        if length or method in ("POST", "PUT"):
            lines.append(f"content-length: {length}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
