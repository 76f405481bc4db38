"""Accepts the connections of one link, opens the same to the node, and puts a pump into each direction."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import structlog

from services.links.link import ExperimentClock, Link
from services.links.pump import Pump

log = structlog.get_logger()

SOCKET_BUFFER_BYTES = 256 * 1024
"""Kept small, so that the sender feels the link and not the kernel's memory."""


@dataclass(frozen=True, slots=True)
class Path:
    """What every connection of one relay needs."""

    link: Link
    host: str
    port: int
    clock: ExperimentClock
    rng: np.random.Generator


class End(asyncio.Protocol):
    """One socket of a connection: feeds one pump and is the sink of the other."""

    transport: asyncio.Transport

    def __init__(self, feeds: Pump, drains: Pump, on_made: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._feeds, self._drains = feeds, drains
        self._on_made, self._on_lost = on_made, on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self.transport = cast("asyncio.Transport", transport)
        sock: socket.socket = transport.get_extra_info("socket")
        # Without NODELAY, Nagle and delayed acknowledgements add stalls of 40 ms to small messages.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self.transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        self._on_made()

    def data_received(self, data: bytes) -> None:
        """Into the pump."""
        self._feeds.feed(bytes(data))

    def eof_received(self) -> bool:
        """Half closed: the end of file travels behind the bytes; the other direction goes on."""
        self._feeds.feed(b"")
        return True

    def pause_writing(self) -> None:
        """The peer reads slower than bytes arrive."""
        self._drains.sink_full(True)

    def resume_writing(self) -> None:
        """It reads again."""
        self._drains.sink_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, for whatever reason."""
        self._on_lost()


class Connection:
    """A pair of sockets and the two pumps between them."""

    def __init__(self, path: Path, on_end: Callable[[Connection], None]) -> None:
        self._path, self._on_end = path, on_end
        self._up = Pump(path.link, lambda link: link.up, path.clock, path.rng, self._one_way_done)
        self._down = Pump(path.link, lambda link: link.down, path.clock, path.rng, self._one_way_done)
        self.near = End(self._up, self._down, self._dial, self.close)
        self._far: End | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False
        self._open_ways = 2

    def close(self) -> None:
        """End both sockets. What was under way is lost, as it is when a peer goes away."""
        if self._closed:
            return
        self._closed = True
        self._up.close()
        self._down.close()
        for end in (self.near, self._far):
            if end is not None:
                end.transport.close()
        if self._far is not None:
            self._path.link.passed.connections -= 1
        self._on_end(self)

    async def wait_dialled(self) -> None:
        """Stop and await the dialling, if it is under way."""
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])

    def _one_way_done(self) -> None:
        self._open_ways -= 1
        if not self._open_ways:
            self.close()

    def _dial(self) -> None:
        self.near.transport.pause_reading()
        self._dialling = asyncio.create_task(self._connect(), name=f"link {self._path.link.name}")

    async def _connect(self) -> None:
        path = self._path
        try:
            _, far = await asyncio.get_running_loop().create_connection(
                lambda: End(self._down, self._up, lambda: None, self.close), path.host, path.port
            )
        except OSError as error:
            log.warning("nobody behind the link", link=path.link.name, why=str(error))
            self.close()
            return
        self._far = far
        path.link.passed.connections += 1
        if self._closed:  # the caller hung up meanwhile
            far.transport.close()
            path.link.passed.connections -= 1
            return
        self._up.connect(self.near.transport, far.transport)
        self._down.connect(far.transport, self.near.transport)
        self.near.transport.resume_reading()


@asynccontextmanager
async def relay(
    link: Link, listen: str, target: str, clock: ExperimentClock, rng: np.random.Generator
) -> AsyncIterator[str]:
    """Relay `listen` (port 0 picks a free one) to `target` inside the block; yields the address listened on.

    Raises:
        OSError: the address is taken or not ours.
    """
    target_host, _, target_port = target.rpartition(":")
    path = Path(link, target_host, int(target_port), clock, rng)
    connections: set[Connection] = set()

    def accept() -> asyncio.Protocol:
        connection = Connection(path, connections.discard)
        connections.add(connection)
        return connection.near

    host, _, port = listen.rpartition(":")
    server = await asyncio.get_running_loop().create_server(accept, host, int(port))
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
            await connection.wait_dialled()
        await server.wait_closed()
