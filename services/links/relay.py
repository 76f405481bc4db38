"""Carries the bytes of one link: accepts connections, opens the same to the node, and shapes both ways."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import structlog

from services.links.link import ExperimentClock, Link, Pick, Shaping

log = structlog.get_logger()

LINE_CHUNKS = 4096
"""Chunks under way in one direction of one connection; beyond it the sender waits, as on a full path."""
SOCKET_BUFFER_BYTES = 256 * 1024
"""Kept small, so that the sender feels the link and not the kernel's memory."""
TIMER_S = 0.0005
"""Waits shorter than this are not worth a timer."""

Line = asyncio.Queue[tuple[float, bytes] | None]
"""Bytes that left and are still under way, with their arrival in loop time; None is the end."""


class Pump:
    """One direction of one connection."""

    def __init__(self, link: Link, pick: Pick, clock: ExperimentClock, rng: np.random.Generator) -> None:
        self._link, self._pick, self._clock, self._rng = link, pick, clock, rng
        self._line: Line = asyncio.Queue(LINE_CHUNKS)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the near end closes. Raises OSError when an end breaks."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(reader))
            group.create_task(self._deliver(writer))

    async def _send(self, reader: asyncio.StreamReader) -> None:
        shaping = self._pick(self._link)
        way = shaping.way(self._rng)
        while data := await reader.read(shaping.chunk_bytes):
            while True:
                if shaping is not self._pick(self._link):
                    shaping = self._pick(self._link)
                    way = shaping.way(self._rng)
                departed_s = way.depart(self._clock.now_s(), len(data))
                if await self._left_by(departed_s, shaping):
                    break
            arrives_s = way.arrive(departed_s, len(data))
            await self._line.put((self._clock.loop_s(arrives_s), data))
        await self._line.put(None)

    async def _left_by(self, departed_s: float, shaping: Shaping) -> bool:
        """Wait for it. False when the settings changed before: then the bytes have not left and are sent anew."""
        wait_s = departed_s - self._clock.now_s()
        if wait_s < TIMER_S:
            return True
        try:
            async with asyncio.timeout(wait_s):
                await shaping.replaced.wait()
        except TimeoutError:
            return True
        return False

    async def _deliver(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        passed, up = self._link.passed, self._pick(self._link) is self._link.up
        while (entry := await self._line.get()) is not None:
            arrives_s, data = entry
            wait_s = arrives_s - loop.time()
            if wait_s >= TIMER_S:
                await asyncio.sleep(wait_s)
            writer.write(data)
            await writer.drain()
            if up:
                passed.up_bytes += len(data)
            else:
                passed.down_bytes += len(data)
        if writer.can_write_eof():
            writer.write_eof()


class Relay:
    """The connections of one listening socket. Use `relay` to run one."""

    def __init__(self, link: Link, target: str, clock: ExperimentClock, rng: np.random.Generator) -> None:
        self._link, self._clock, self._rng = link, clock, rng
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A peer connected; this relay owns the task."""
        task = asyncio.create_task(self._connection(reader, writer), name=f"link {self._link.name}")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            log.warning("nobody behind the link", link=self._link.name, why=str(error))
            writer.close()
            return
        self._link.passed.connections += 1
        up = Pump(self._link, lambda link: link.up, self._clock, self._rng)
        down = Pump(self._link, lambda link: link.down, self._clock, self._rng)
        try:
            for end in (writer, far_writer):
                _tune(end)
            async with asyncio.TaskGroup() as group:
                group.create_task(up.run(reader, far_writer))
                group.create_task(down.run(far_reader, writer))
        except* OSError as broken:
            log.debug("connection broke", link=self._link.name, why=str(broken.exceptions[0]))
        finally:
            self._link.passed.connections -= 1
            for end in (writer, far_writer):
                end.close()


@asynccontextmanager
async def relay(
    link: Link, listen: str, target: str, clock: ExperimentClock, rng: np.random.Generator
) -> AsyncIterator[str]:
    """Relay `listen` (port 0 picks a free one) to `target` inside the block; yields the address listened on.

    Raises:
        OSError: the address is taken or not ours.
    """
    running = Relay(link, target, clock, rng)
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(running.accept, host, int(port), limit=SOCKET_BUFFER_BYTES)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await running.close()
        await server.wait_closed()


def _tune(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    # Without NODELAY, Nagle and delayed acknowledgements add stalls of 40 ms to small messages.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    writer.transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
