"""Accepts the connections of one link, opens a connection to the node for each, and pumps bytes in both directions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import structlog

from services.links.link import EmulatedLink, ExperimentClock
from services.links.pump import Pump

log = structlog.get_logger()

SOCKET_BUFFER_BYTES = 256 * 1024
"""Small, so that the link slows the sender down and not the buffers of the kernel."""


@dataclass(frozen=True, slots=True)
class RelayContext:
    """What every connection of one relay needs."""

    link: EmulatedLink
    host: str
    port: int
    clock: ExperimentClock
    rng: np.random.Generator


class RelaySocket(asyncio.Protocol):
    """One socket of a connection: feeds one pump and is the sink of the other."""

    transport: asyncio.Transport

    def __init__(self, feeds: Pump, drains: Pump, on_opened: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._feeds, self._drains = feeds, drains
        self._on_opened, self._on_lost = on_opened, on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self.transport = cast("asyncio.Transport", transport)
        sock: socket.socket = transport.get_extra_info("socket")
        # Without NODELAY, Nagle and delayed acknowledgements add stalls of 40 ms to small messages.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self.transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        self._on_opened()

    def data_received(self, data: bytes) -> None:
        """Feed the pump."""
        self._feeds.feed(bytes(data))

    def eof_received(self) -> bool:
        """Half closed: the end of file follows the bytes; the other direction continues."""
        self._feeds.feed(b"")
        return True

    def pause_writing(self) -> None:
        """The peer reads more slowly than bytes arrive."""
        self._drains.sink_full(True)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._drains.sink_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, for any reason."""
        self._on_lost()


class Connection:
    """A pair of sockets and the two pumps between them."""

    def __init__(self, context: RelayContext, on_end: Callable[[Connection], None]) -> None:
        self._context, self._on_end = context, on_end
        self._up = Pump(context.link, lambda link: link.up, context.clock, context.rng, self._direction_ended)
        self._down = Pump(context.link, lambda link: link.down, context.clock, context.rng, self._direction_ended)
        self.near = RelaySocket(self._up, self._down, self._start_connecting, self.close)
        self._far: RelaySocket | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._open_directions = 2

    def close(self) -> None:
        """Close both sockets. Bytes in transit are lost, as when a peer disappears."""
        if self._closed:
            return
        self._closed = True
        self._up.close()
        self._down.close()
        for end in (self.near, self._far):
            if end is not None:
                end.transport.close()
        if self._far is not None:
            self._context.link.counters.connections -= 1
        self._on_end(self)

    async def cancel_connecting(self) -> None:
        """Stop an attempt to connect, and wait for its end."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])

    def _direction_ended(self) -> None:
        self._open_directions -= 1
        if not self._open_directions:
            self.close()

    def _start_connecting(self) -> None:
        self.near.transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect(), name=f"link {self._context.link.name}")

    async def _connect(self) -> None:
        context = self._context
        try:
            _, far = await asyncio.get_running_loop().create_connection(
                lambda: RelaySocket(self._down, self._up, lambda: None, self.close), context.host, context.port
            )
        except OSError as error:
            log.warning("the target of the link does not answer", link=context.link.name, why=str(error))
            self.close()
            return
        self._far = far
        context.link.counters.connections += 1
        if self._closed:  # the caller has disconnected
            far.transport.close()
            context.link.counters.connections -= 1
            return
        self._up.connect(self.near.transport, far.transport)
        self._down.connect(far.transport, self.near.transport)
        self.near.transport.resume_reading()


@asynccontextmanager
async def relay(
    link: EmulatedLink, listen: str, target: str, clock: ExperimentClock, rng: np.random.Generator
) -> AsyncIterator[str]:
    """Relay `listen` (port 0 picks a free one) to `target` inside the block; yields the address listened on.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    target_host, _, target_port = target.rpartition(":")
    context = RelayContext(link, target_host, int(target_port), clock, rng)
    connections: set[Connection] = set()

    def accept() -> asyncio.Protocol:
        connection = Connection(context, connections.discard)
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
            await connection.cancel_connecting()
        await server.wait_closed()
