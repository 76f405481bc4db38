"""One child process: what to start, its log, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.launcher.health import HealthCheck
from cli.launcher.log_file import RotatingLog

PIPE_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command to start, and the check that it serves."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Added to the launcher's own environment."""
    health: HealthCheck
    essential: bool = True
    """Whether the system stops when this process ends. The end of a node is only reported."""


@dataclass(slots=True)
class _Lines:
    """Splits a stream of bytes into lines."""

    rest: bytes = b""
    longest: int = field(default=1 << 20, repr=False)

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > self.longest:  # a line without an end must not fill the memory
            lines, self.rest = [*lines, self.rest], b""
        return lines


class Child:
    """A process. Its output goes unchanged to `log_path` and, line by line, to `show`."""

    def __init__(self, spec: ProcessSpec, log_path: Path, show: Callable[[str, str], None]) -> None:
        self.spec, self.log_path = spec, log_path
        self.restarts = 0
        self.trouble = ""
        """Why it does not run, in words; empty while it runs."""
        self._show = show
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._started_before = False

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    def owns_its_port(self) -> bool:
        """Whether this process, and not an older one, listens at its address."""
        try:
            sockets = psutil.Process(self.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == self.spec.health.port for s in sockets)

    async def start(self) -> None:
        """Start it in its own session, so that Ctrl-C reaches only the launcher, which then stops all in order.

        A process that ended may be started again; its log is continued.
        """
        self._started_before = self._process is not None
        self._process = await asyncio.create_subprocess_exec(
            *self.spec.argv,
            env={**os.environ, **self.spec.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._pump = asyncio.create_task(self._pump_lines(), name=f"log of {self.spec.name}")

    async def wait(self) -> int:
        """Wait for its end and its last log line; returns the exit status."""
        assert self._process is not None and self._pump is not None
        status = await self._process.wait()
        await asyncio.wait({self._pump}, timeout=PIPE_WAIT_S)
        self._pump.cancel()  # do not wait for a grandchild that still holds the pipe
        return status

    async def stop(self, grace_s: float) -> bool:
        """Send SIGTERM and, after `grace_s` seconds, SIGKILL; True if it ended before that."""
        if self._process is None or self.returncode is not None:
            return True
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
            in_time = True
        except TimeoutError:
            self.kill()
            in_time = False
        await self.wait()
        return in_time

    def kill(self) -> None:
        """Send SIGKILL to it and its children."""
        if self._process is not None and self.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-count:])
        except OSError as error:
            return f"(no log: {error})"

    async def _pump_lines(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        lines, log = _Lines(), RotatingLog(self.log_path, new=not self._started_before)
        try:
            while data := await self._process.stdout.read(1 << 16):
                log.write(data)
                for line in lines.feed(data):
                    self._show(self.spec.name, line.decode(errors="replace"))
        finally:
            log.close()
        if lines.rest:
            self._show(self.spec.name, lines.rest.decode(errors="replace"))
