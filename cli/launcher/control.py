"""`up` and `down`: one system per state folder, in the foreground or detached."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console

from cli.launcher.control_socket import control_socket
from cli.launcher.errors import LaunchFailed
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.log_view import LogView
from cli.launcher.process import Child
from cli.launcher.restarts import Restarts
from cli.launcher.state_file import ProcessEntry, ProcessId, StateFile, SystemState
from cli.launcher.supervisor import Limits, Supervisor
from cli.launcher.system_plan import SystemOptions, SystemPlan, plan_system
from cli.render import say
from skyshore.runtime.serve import stop_signal

LOG_FILE = "SKYSHORE_LAUNCHER_LOG"
"""Environment variable of a launcher in the background: the file that it writes to."""
DOWN_WAIT_S = 60.0
POLL_S = 0.1
RESTART_WAIT_S = 180.0
"""Until a process that is restarted serves, or the launcher says why not."""


def log_folder(state_folder: Path) -> Path:
    """The folder for the output of every process."""
    return state_folder / "logs"


async def run_system(options: SystemOptions, cached: set[str], console: Console, limits: Limits = Limits()) -> None:  # noqa: B008
    """Start a system, wait for a signal or the end of an essential process, then stop the system in order.

    Raises:
        AlreadyRunning: a system runs in this state folder.
        LaunchFailed: the system did not start, or an essential process ended.
    """
    file = StateFile(options.state_folder)
    with file.locked():
        stop_remains(file, console)
        log_folder(options.state_folder).mkdir(parents=True, exist_ok=True)
        _check_store(options.redis_url)
        plan = plan_system(options, cached)
        view = LogView(console, tuple(spec.name for stage in plan.stages for spec in stage))
        for note in plan.notes:
            view.say(note, "yellow")
        record = _Recorder(file, plan, options.scenario)
        restarts = Restarts(random.Random()) if options.restart else None
        logs = log_folder(options.state_folder)
        supervisor = Supervisor(plan.stages, logs, view, limits, record.changed, restarts=restarts)
        try:
            async with control_socket(supervisor) as path:
                record.opened(path)
                await _until_stopped(supervisor, record, view)
        finally:
            await _stop(supervisor, view)
            file.remove()


def start_detached(arguments: list[str], state_folder: Path, timeout_s: float) -> SystemState:
    """Run `skyshore up` with `arguments` in the background; returns when the system is ready.

    Raises:
        AlreadyRunning: a system runs in this state folder.
        LaunchFailed: the system did not start; the message quotes the end of its log.
    """
    file = StateFile(state_folder)
    with file.locked():
        pass  # the background process takes the lock later; asking first gives a clearer message
    log_folder(state_folder).mkdir(parents=True, exist_ok=True)
    log_path = log_folder(state_folder) / "launcher.log"
    log_path.unlink(missing_ok=True)
    with log_path.open("ab") as log:  # appended to by the launcher's own writes and, for tracebacks, by Python
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, LOG_FILE: str(log_path.absolute())},
        )
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise LaunchFailed(f"the launcher ended with status {process.returncode}\n{_tail(log_path)}")
        state = file.read()
        if state is not None and state.ready and state.launcher.pid == process.pid:
            return state
        time.sleep(POLL_S)
    process.terminate()
    raise LaunchFailed(f"not ready within {timeout_s:g} s\n{_tail(log_path)}")


def stop_system(state_folder: Path, console: Console) -> bool:
    """Stop the system of this folder, or what a dead launcher left; False if there was nothing to stop."""
    file = StateFile(state_folder)
    state = file.read()
    if state is None:
        return False
    launcher = state.launcher.find()
    if launcher is not None:
        launcher.terminate()
        try:
            launcher.wait(DOWN_WAIT_S)
        except psutil.TimeoutExpired:
            say(console, (f"the launcher did not stop within {DOWN_WAIT_S:g} s; killing it", "red"))
            launcher.kill()
    stop_remains(StateFile(state_folder), console)
    return True


def restart_process(state: SystemState, name: str) -> None:
    """Let the launcher stop a process and start it; returns when it serves.

    Raises:
        LaunchFailed: no such process, or it does not serve again.
    """
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(RESTART_WAIT_S)
        try:
            control.connect(state.control_socket)
            control.sendall(json.dumps({"restart": name}).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        except (OSError, ValueError) as error:
            raise LaunchFailed(f"the launcher does not answer ({error}); see `skyshore status`") from error
    if "error" in answer:
        raise LaunchFailed(answer["error"])


def stop_remains(file: StateFile, console: Console) -> None:
    """Stop processes that a dead launcher left, newest first, and remove the state file."""
    state = file.read()
    if state is None or state.alive:
        return
    left = [(entry.name, process) for entry in reversed(state.processes) if (process := entry.id.find()) is not None]
    for name, process in left:
        say(console, (f"stopping {name} (pid {process.pid}), left by a launcher that has ended", "yellow"))
        process.terminate()
    _, alive = psutil.wait_procs([process for _, process in left], timeout=10)
    for process in alive:
        process.kill()
    file.remove()


def _check_store(redis_url: str) -> None:
    """Raises LaunchFailed if the user's own store does not answer, before anything is started."""
    if redis_url and (problem := HealthCheck(Probe.REDIS, redis_url).problem()):
        raise LaunchFailed(f"{problem}; start it, or unset SKYSHORE_REDIS_URL to start a new Valkey server")


class _Recorder:
    """Keeps the state file up to date while the system starts and stops."""

    def __init__(self, file: StateFile, plan: SystemPlan, scenario: Path | None) -> None:
        self._file = file
        me = ProcessId.of(psutil.Process().pid)
        addresses = (plan.gateway_url, plan.redis_url, plan.scheduler_address)
        source = str(scenario.absolute()) if scenario is not None else ""
        self._state = SystemState(me, False, *addresses, links_url=plan.links_url, scenario=source, notes=plan.notes)

    def opened(self, control_socket: str) -> None:
        self._state = replace(self._state, control_socket=control_socket)

    def changed(self, child: Child) -> None:
        """Write down how a process is now. Entries keep the order of the first start."""
        spec, known = child.spec, {entry.name: entry for entry in self._state.processes}
        if child.trouble and spec.name in known:
            identity = known[spec.name].id
        else:
            try:
                identity = ProcessId.of(child.pid)
            except psutil.NoSuchProcess:
                return  # already ended: the supervisor reports why, and there is nothing to stop
        known[spec.name] = ProcessEntry(
            spec.name, identity, spec.health, str(child.log_path), spec.essential, child.restarts, child.trouble
        )
        self._write(replace(self._state, processes=tuple(known.values())))

    def ready(self) -> SystemState:
        return self._write(replace(self._state, ready=True))

    def _write(self, state: SystemState) -> SystemState:
        self._state = state
        self._file.write(state)
        return state


async def _until_stopped(supervisor: Supervisor, record: _Recorder, view: LogView) -> None:
    stop = asyncio.create_task(stop_signal())
    life = asyncio.create_task(_live(supervisor, record, view))
    try:
        await asyncio.wait({stop, life}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stop, life):
            task.cancel()
        _, ended = await asyncio.gather(stop, life, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _live(supervisor: Supervisor, record: _Recorder, view: LogView) -> None:
    await supervisor.start()
    state = record.ready()
    view.say(f"ready: {state.gateway_url}  (Ctrl-C stops everything)", "bold green")
    ended = await supervisor.watch()
    raise LaunchFailed(
        f"{ended.spec.name} ended, and the system cannot run without it; all processes are stopped\n"
        f"last lines of {ended.log_path}:\n{ended.last_lines()}"
    )


async def _stop(supervisor: Supervisor, view: LogView) -> None:
    """Stop the children in order; a second Ctrl-C kills those that still run."""
    view.say("stopping: gateway first, store last (Ctrl-C again kills the processes)", "bold")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.kill)
    try:
        await supervisor.stop()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _tail(path: Path, count: int = 25) -> str:
    lines = path.read_text(errors="replace").splitlines()[-count:]
    return "\n".join([f"last lines of {path}:", *lines])
