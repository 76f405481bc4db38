"""A supervised group of rank processes. It starts them, runs jobs on them, and starts them again when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog
from numpy.typing import NDArray

from cloud_node.dsp.launcher import Launcher
from cloud_node.dsp.messages import Message, read_message, write_message
from cloud_node.dsp.rank_session import RankSession
from skyshore.domain.errors import DeadlineExceeded, InvalidTask, NodeUnavailable, QueueFull
from skyshore.runtime.listen import check_listen

log = structlog.get_logger()

_HELLO_S = 5.0
"""Seconds that a new connection has to say which rank it is."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a rank group is run."""

    size: int = 2
    """Ranks in the group."""
    host: str = "127.0.0.1"
    """Address the front listens on for its ranks; one of the network's when ranks are on other hosts."""
    allow_wider: bool = False
    """Whether `host` may be other than loopback."""
    port: int = 0
    """Port the front listens on; 0 takes a free one. Ranks on other hosts need a fixed one."""
    token: str = ""
    """Secret that every rank must send. Empty: a random one, right for ranks that the group starts itself."""
    start_s: float = 60.0
    """Seconds for all ranks to be ready."""
    stall_s: float = 10.0
    """Seconds a job may take; after them the group is started again."""
    waiting: int = 64
    """Jobs admitted at a time, running ones included."""
    backoff_s: float = 1.0
    """Pause after a launch that failed, doubled each time up to 30 s."""


class RankGroup:
    """Runs jobs on 1 … size ranks. Use as an asynchronous context manager; it owns every process and connection.

    Raises on entry:
        NodeUnavailable: the ranks did not come up within `start_s`, or not as many as `size`.
    """

    def __init__(self, settings: GroupSettings, launcher: Launcher) -> None:
        self._settings, self._launcher = settings, launcher
        self._token = settings.token or secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._admitted = 0
        self._session: RankSession | None = None
        self._usable = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._last_failure = ""
        self._closed = False
        self.listening = asyncio.Event()
        """Set once ranks may connect to `address`."""
        self.rebuilds = 0
        """Times the group was started again after it had been ready."""

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return self._settings.size

    @property
    def ready(self) -> bool:
        """Whether a job could start now."""
        session = self._session
        return session is not None and session.ready.done() and not session.broken.done()

    @property
    def busy(self) -> int:
        """Ranks at work."""
        return self._session.busy if self._session is not None and self.ready else 0

    @property
    def pids(self) -> list[int]:
        """Processes of the ranks that are connected now."""
        return self._session.pids if self._session is not None else []

    @property
    def address(self) -> str:
        """host:port where ranks connect."""
        if self._server is None:
            raise NodeUnavailable("the group is not started; enter it with `async with`")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        check_listen(f"{self._settings.host}:{self._settings.port}", allow_wider=self._settings.allow_wider)
        self._server = await asyncio.start_server(self._serve, self._settings.host, self._settings.port)
        self.listening.set()
        self._supervisor = asyncio.create_task(self._supervise(), name="rank-group")
        try:
            async with asyncio.timeout(self._settings.start_s), self._usable:
                await self._usable.wait_for(lambda: self.ready or self._last_failure)
        except TimeoutError:
            self._last_failure = f"no {self.size} ranks within {self._settings.start_s} s"
        except BaseException:
            await self._close()
            raise
        if not self.ready:
            await self._close()
            raise NodeUnavailable(f"the rank group did not start: {self._last_failure}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def run(self, request: Mapping[str, Any], parts: Sequence[NDArray[Any]], deadline_s: float) -> NDArray[Any]:
        """Run one job on as many ranks as there are parts; run it again once if the group fails and time is left.

        Raises:
            DeadlineExceeded: no answer within `deadline_s`.
            NodeUnavailable: the group failed twice.
            QueueFull: too many jobs are waiting already.
            InvalidTask: more parts than ranks, or what the program refused with.
        """
        if not 1 <= len(parts) <= self.size:
            raise InvalidTask(f"a job for {len(parts)} ranks cannot run on a group of {self.size}")
        if self._admitted >= self._settings.waiting:
            raise QueueFull("the rank group is full; try again in a second", retry_after_s=1.0)
        self._admitted += 1
        ends_s = asyncio.get_running_loop().time() + deadline_s
        try:
            async with asyncio.timeout_at(ends_s):
                try:
                    return await self._attempt(request, parts, ends_s)
                except NodeUnavailable as failure:
                    log.warning("job runs again", why=failure.message)
                return await self._attempt(request, parts, ends_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the rank group gave no answer within {deadline_s:.3g} s") from None
        finally:
            self._admitted -= 1

    async def _attempt(self, request: Mapping[str, Any], parts: Sequence[NDArray[Any]], ends_s: float) -> NDArray[Any]:
        async with self._usable:
            await self._usable.wait_for(lambda: self.ready or self._closed)
        session = self._session
        if self._closed or session is None:
            raise NodeUnavailable("the rank group was closed")
        left_s = ends_s - asyncio.get_running_loop().time()
        return await session.run(next(self._numbers), request, parts, left_s)

    async def _supervise(self) -> None:
        """Start the ranks, wait for a failure, stop them, and repeat until cancelled."""
        pause_s = self._settings.backoff_s
        while True:
            run = secrets.token_hex(6)
            expected = None if self._launcher.foreign else f"{run}/0"
            self._session = RankSession(self.size, self._token, expected, self._settings.stall_s)
            try:
                await self._launcher.start(self.address, run, self._token)
                reason = await self._live(self._session)
            except OSError as failure:
                reason = f"the ranks could not be started: {failure}"
            finally:
                self._session.fail("the rank group closes")
                await self._launcher.stop(self._session.pids)
            log.warning("rank group lost", why=reason)
            if self._session.ready.done():
                self.rebuilds += 1
                pause_s = self._settings.backoff_s
                continue
            self._last_failure = reason
            await self._announce()
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, 2 * pause_s)

    async def _live(self, session: RankSession) -> str:
        """Wait until the session ends; end it when the ranks do not start or a job stalls."""
        ended = asyncio.create_task(self._launcher.ended(), name="rank-group-ended")
        ended.add_done_callback(lambda task: None if task.cancelled() else session.fail(task.result()))
        try:
            return await self._watch(session)
        finally:
            ended.cancel()

    async def _watch(self, session: RankSession) -> str:
        events = {session.ready, session.broken}
        await asyncio.wait(events, timeout=self._settings.start_s, return_when=asyncio.FIRST_COMPLETED)
        if not session.ready.done():
            session.fail(f"no {self.size} ranks within {self._settings.start_s} s")
        await self._announce()
        loop = asyncio.get_running_loop()
        while not session.broken.done():
            stall_s = session.next_stall_s()
            if stall_s is not None and stall_s <= loop.time():
                session.fail(f"a job took more than {self._settings.stall_s} s")
                break
            left_s = self._settings.stall_s if stall_s is None else stall_s - loop.time()
            await asyncio.wait({session.broken}, timeout=left_s)
        return session.broken.result()

    async def _announce(self) -> None:
        async with self._usable:
            self._usable.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one rank's connection until it closes."""
        task, session = asyncio.current_task(), self._session
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            if session is not None:
                await self._talk(session, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, InvalidTask) as failure:
            log.info("connection closed before a rank joined", why=repr(failure))
        finally:
            writer.close()

    async def _talk(self, session: RankSession, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await asyncio.wait_for(read_message(reader), _HELLO_S)
        try:
            member = session.admit(hello.head, writer)
        except NodeUnavailable as refusal:
            await write_message(writer, Message({"refused": refusal.message}))
            return
        try:
            await write_message(writer, Message({"welcome": True}))
            while True:
                session.receive(member, await read_message(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            session.fail(f"rank {member.rank} died")
        except InvalidTask as nonsense:
            session.fail(f"rank {member.rank} sent {nonsense.message}")

    async def _close(self) -> None:
        self._closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            await self._announce()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._connections, return_exceptions=True)
