"""The state file: which processes run where. Written by the launcher, read by the other commands."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cli.launcher.errors import AlreadyRunning, LaunchFailed, NotRunning
from cli.launcher.health import HealthCheck, Probe
from skyshore.runtime.private_files import make_private


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid and its start time, so that a reused pid is not mistaken for our process."""

    pid: int
    started_at_s: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of a process that runs now."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at_s) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process of the system."""

    name: str
    id: ProcessId
    health: HealthCheck
    log: str
    essential: bool
    restarts: int = 0
    trouble: str = ""
    """Why it does not run; empty while it runs."""


@dataclass(frozen=True, slots=True)
class SystemState:
    """One system: its launcher, its addresses and its processes in the order of their start."""

    launcher: ProcessId
    ready: bool
    gateway_url: str
    redis_url: str
    scheduler_address: str
    processes: tuple[ProcessEntry, ...] = ()
    notes: tuple[str, ...] = ()
    """Messages for the user: ports that were taken, models that are missing."""
    links_url: str = ""
    """URL of the link emulator; empty if no link is emulated."""
    control_socket: str = ""
    """Path of the socket on which the launcher takes commands (see `control_socket`)."""
    scenario: str = ""
    """Scenario file that it was started from; empty without one."""

    @property
    def alive(self) -> bool:
        """Whether its launcher still runs."""
        return self.launcher.find() is not None


class StateFile:
    """`system.json` in the state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "system.json"

    def write(self, state: SystemState) -> None:
        """Replace the file in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(state), indent=2))
        fresh.replace(self.path)

    def read(self) -> SystemState | None:
        """The state; None if no system was started.

        Raises:
            LaunchFailed: the file is damaged.
        """
        try:
            raw = json.loads(self.path.read_text())
            processes = tuple(_entry(entry) for entry in raw.pop("processes"))
            notes, launcher = tuple(raw.pop("notes")), ProcessId(**raw.pop("launcher"))
            return SystemState(launcher=launcher, processes=processes, notes=notes, **raw)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LaunchFailed(
                f"{self.path} is damaged ({error}); stop its processes by hand and delete the file"
            ) from error

    def running(self) -> SystemState:
        """The state of the system that runs.

        Raises:
            NotRunning: no system was started, or its launcher has ended.
        """
        state = self.read()
        if state is None:
            log = self.folder / "logs" / "launcher.log"
            before = f" (the log of the last one is {log})" if log.is_file() else ""
            raise NotRunning(f"no system runs in {self.folder}; start one with `skyshore up`{before}")
        if not state.alive:
            raise NotRunning(f"the launcher of {self.path} has ended; `skyshore down` stops the processes that it left")
        return state

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this folder; the lock ends with the process.

        Raises:
            AlreadyRunning: another launcher holds it.
        """
        make_private(self.folder)
        handle = os.open(self.folder / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise AlreadyRunning(f"a system already runs in {self.folder}; see `skyshore status`") from error
        try:
            yield
        finally:
            os.close(handle)


def _entry(raw: dict[str, object]) -> ProcessEntry:
    identity, health = raw["id"], raw["health"]
    if not isinstance(identity, dict) or not isinstance(health, dict):
        raise TypeError("id and health must be objects")
    check = HealthCheck(Probe(health["probe"]), health["address"])
    return ProcessEntry(
        str(raw["name"]),
        ProcessId(**identity),
        check,
        str(raw["log"]),
        bool(raw["essential"]),
        int(str(raw.get("restarts", 0))),
        str(raw.get("trouble", "")),
    )
