"""What runs where: written by the launcher, read by `down`, `status` and every command that talks to the gateway."""

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


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid and when it was born, so that a reused pid is never taken for ours."""

    pid: int
    born_s: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Identify a process that runs now."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, if it is still the same one and no zombie."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born_s) < 0.05
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
    """What its starter should know: ports that moved, models that are missing."""
    links_url: str = ""
    """Interface of the link emulator; empty where no link is emulated."""
    control_socket: str = ""
    """Path of the socket on which the launcher takes commands (see `control_socket`)."""
    scenario: str = ""
    """File it was started from; empty without one."""

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
        """The state, or None where no system was started.

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
            raise LaunchFailed(f"{self.path} is damaged ({error}); stop what runs by hand and delete it") from error

    def running(self) -> SystemState:
        """The state of a system that runs.

        Raises:
            NotRunning: none was started, or its launcher is gone.
        """
        state = self.read()
        if state is None:
            log = self.folder / "logs" / "launcher.log"
            before = f" (how the last one ended is in {log})" if log.is_file() else ""
            raise NotRunning(f"no system runs in {self.folder}; start one with `skyshore up`{before}")
        if not state.alive:
            raise NotRunning(f"the launcher of {self.path} is gone; `skyshore down` clears up what it left")
        return state

    def remove(self) -> None:
        """Forget the system."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only launcher of this folder; the lock goes with the process, however it ends.

        Raises:
            AlreadyRunning: another launcher holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
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
    return ProcessEntry(str(raw["name"]), ProcessId(**identity), check, str(raw["log"]), bool(raw["essential"]))
