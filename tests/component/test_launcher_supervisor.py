"""The supervisor with real processes: it starts them in order, names the one that failed and its log, and stops all."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import socket
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cli.launcher.errors import AlreadyRunning, LaunchFailed, NotRunning
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.log_view import LogView, render
from cli.launcher.ports import Ports
from cli.launcher.process import ProcessSpec
from cli.launcher.restarts import Backoff, Restarts
from cli.launcher.state_file import ProcessEntry, ProcessId, StateFile, SystemState
from cli.launcher.supervisor import Limits, Supervisor
from skyshore.scenario.effects import StartNode, StopNode

SERVER = """
    import http.server, json, os, signal, sys, threading
    port, journal, stubborn = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "stubborn"
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers()
        def log_message(self, *args): pass
    server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    def stop(*_):
        if not stubborn:
            open(journal, "a").write(f"stop {port}\\n"); threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    open(journal, "a").write(f"start {port}\\n")
    print(json.dumps({"event": "hello", "level": "info", "port": port}), flush=True)
    server.serve_forever(0.05)
"""


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    for _ in range(round(timeout_s / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the condition did not become true")


@pytest.fixture
def free_port() -> Callable[[], int]:
    ports = Ports()
    return lambda: ports.choose("test", 1)  # port 1 cannot be used: any free port


class Sandbox:
    """A supervisor with its logs in a temporary folder."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder, self.free_port = folder, free_port
        self.script = folder / "server.py"
        self.script.write_text(textwrap.dedent(SERVER))
        self.journal = folder / "journal"
        self.screen = io.StringIO()

    def server(self, name: str, *, stubborn: bool = False, essential: bool = True) -> ProcessSpec:
        port = self.free_port()
        behaviour = "stubborn" if stubborn else "polite"
        argv = (sys.executable, "-S", str(self.script), str(port), str(self.journal), behaviour)
        return ProcessSpec(name, argv, {}, HealthCheck(Probe.HTTP, f"http://127.0.0.1:{port}/"), essential)

    def python(self, name: str, code: str) -> ProcessSpec:
        address = HealthCheck(Probe.HTTP, f"http://127.0.0.1:{self.free_port()}/")
        return ProcessSpec(name, (sys.executable, "-S", "-c", code), {}, address)

    def supervisor(
        self,
        *stages: list[ProcessSpec],
        ready_s: float = 100.0,
        grace_s: float = 60.0,
        restarts: Restarts | None = None,
    ) -> Supervisor:
        view = LogView(Console(file=self.screen, width=200))
        return Supervisor(stages, self.folder, view, Limits(ready_s, grace_s), restarts=restarts)

    def events(self, specs: list[ProcessSpec]) -> list[str]:
        name_of = {spec.argv[3]: spec.name for spec in specs}
        return [f"{verb} {name_of[port]}" for verb, port in map(str.split, self.journal.read_text().splitlines())]


@pytest.fixture
def sandbox(tmp_path: Path, free_port: Callable[[], int]) -> Sandbox:
    return Sandbox(tmp_path, free_port)


async def test_stages_start_in_order_and_stop_in_the_opposite_order(sandbox: Sandbox) -> None:
    store, node, gateway = sandbox.server("store"), sandbox.server("node"), sandbox.server("gateway")
    supervisor = sandbox.supervisor([store], [node], [gateway])
    await supervisor.start()
    pids = [child.pid for child in supervisor.children]
    await supervisor.stop()
    expected = ["start store", "start node", "start gateway", "stop gateway", "stop node", "stop store"]
    assert sandbox.events([store, node, gateway]) == expected
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "hello" in sandbox.screen.getvalue()
    assert '"event": "hello"' in (sandbox.folder / "node.log").read_text()


async def test_a_child_that_dies_at_once_is_named_with_its_log_and_last_lines(sandbox: Sandbox) -> None:
    supervisor = sandbox.supervisor(
        [sandbox.server("store")], [sandbox.python("node", "raise SystemExit('no model here')")]
    )
    with pytest.raises(LaunchFailed) as failure:
        await supervisor.start()
    await supervisor.stop()
    assert "node (pid" in failure.value.message
    assert "ended with status 1" in failure.value.message
    assert str(sandbox.folder / "node.log") in failure.value.message
    assert "no model here" in failure.value.message
    assert all(child.returncode is not None for child in supervisor.children)


async def test_a_child_that_never_serves_fails_the_start_within_the_limit(sandbox: Sandbox) -> None:
    supervisor = sandbox.supervisor([sandbox.python("silent", "import time; time.sleep(60)")], ready_s=0.5)
    with pytest.raises(LaunchFailed, match=r"silent did not serve within 0.5 s: .*does not answer"):
        await supervisor.start()
    await supervisor.stop()
    assert supervisor.children[0].returncode == -signal.SIGTERM


async def test_another_process_on_the_childs_port_is_not_taken_for_it(sandbox: Sandbox) -> None:
    first = sandbox.server("first")
    second = ProcessSpec("second", (*first.argv[:3], str(sandbox.free_port()), *first.argv[4:]), {}, first.health)
    supervisor = sandbox.supervisor([first], [second], ready_s=2.0)
    with pytest.raises(LaunchFailed, match=r"second did not serve .* another process answers at"):
        await supervisor.start()
    await supervisor.stop()


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_time(sandbox: Sandbox) -> None:
    supervisor = sandbox.supervisor([sandbox.server("stubborn", stubborn=True)], grace_s=0.3)
    await supervisor.start()
    await supervisor.stop()
    assert supervisor.children[0].returncode == -signal.SIGKILL
    assert "stubborn did not stop within 0.3 s and was killed" in sandbox.screen.getvalue()


async def test_a_lost_node_is_reported_and_the_watch_continues_until_an_essential_child_ends(sandbox: Sandbox) -> None:
    node, gateway = sandbox.server("node", essential=False), sandbox.server("gateway")
    supervisor = sandbox.supervisor([node, gateway])
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    os.kill(supervisor.children[0].pid, signal.SIGKILL)
    await until(lambda: "node (pid" in sandbox.screen.getvalue())
    assert "was ended by signal 9; it is not restarted" in sandbox.screen.getvalue()
    assert not watching.done()
    os.kill(supervisor.children[1].pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        assert (await watching).spec.name == "gateway"
    await supervisor.stop()


QUICKLY = Backoff(first_s=0.01, most_s=0.02)


@pytest.mark.parametrize("essential", [True, False])
async def test_a_process_that_is_killed_comes_back(sandbox: Sandbox, essential: bool) -> None:
    node = sandbox.server("node", essential=essential)
    supervisor = sandbox.supervisor([node], restarts=Restarts(random.Random(1), QUICKLY))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    (child,) = supervisor.children
    for round_ in (1, 2):
        old = child.pid
        os.kill(old, signal.SIGKILL)
        await until(lambda old=old: child.pid != old and not child.spec.health.problem() and child.owns_its_port())
        assert child.restarts >= round_  # more where the port was not free at once
        assert child.trouble == ""
    assert "was ended by signal 9; it starts again in 0.0 s" in sandbox.screen.getvalue()
    assert not watching.done()
    watching.cancel()
    await supervisor.stop()


async def test_a_process_that_cannot_stay_is_tried_again_and_again(sandbox: Sandbox) -> None:
    marker = sandbox.folder / "broken"
    server = sandbox.server("node")
    code = (
        f"import os,sys\nif os.path.exists({str(marker)!r}): sys.exit('no luck')\nos.execv(sys.argv[1], sys.argv[1:])"
    )
    spec = replace(server, argv=(sys.executable, "-c", code, *server.argv))
    supervisor = sandbox.supervisor([spec], restarts=Restarts(random.Random(1), QUICKLY))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    (child,) = supervisor.children
    marker.touch()
    child.kill()
    await until(lambda: child.restarts >= 3)
    marker.unlink()
    await until(lambda: not child.trouble and not child.spec.health.problem())
    assert "ended with status 1; it starts again" in sandbox.screen.getvalue()
    watching.cancel()
    await supervisor.stop()


async def test_down_does_not_wait_for_a_restart(sandbox: Sandbox) -> None:
    late = Backoff(first_s=3600.0, most_s=3600.0)
    supervisor = sandbox.supervisor([sandbox.server("node")], restarts=Restarts(random.Random(1), late))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    (child,) = supervisor.children
    child.kill()
    await until(lambda: bool(child.trouble))
    assert "starts again in" in child.trouble
    watching.cancel()
    await asyncio.wait([watching])
    await supervisor.stop()


async def test_a_node_that_a_fault_stopped_stays_down_until_the_fault_ends(sandbox: Sandbox) -> None:
    node = sandbox.server("node", essential=False)
    supervisor = sandbox.supervisor([node], restarts=Restarts(random.Random(1), QUICKLY))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    (child,) = supervisor.children
    await supervisor.apply("node", StopNode())
    await until(lambda: child.trouble == "stopped on request")
    assert child.restarts == 0
    await supervisor.apply("node", StartNode())
    await until(lambda: not child.spec.health.problem())
    assert child.trouble == ""
    watching.cancel()
    await supervisor.stop()


async def test_restart_by_name_replaces_the_process_and_waits_until_it_serves(sandbox: Sandbox) -> None:
    supervisor = sandbox.supervisor([sandbox.server("gateway")], restarts=Restarts(random.Random(1), QUICKLY))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    (child,) = supervisor.children
    old = child.pid
    await supervisor.restart("gateway")
    assert child.pid != old
    assert not psutil.pid_exists(old)
    assert (child.restarts, child.spec.health.problem()) == (1, "")
    with pytest.raises(LaunchFailed, match="no process 'gatway'; the processes are gateway"):
        await supervisor.restart("gatway")
    assert not watching.done()
    watching.cancel()
    await supervisor.stop()


def test_a_taken_port_is_replaced_with_a_note_unless_it_was_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = Ports()
        chosen = ports.choose("gateway", port)
        assert chosen != port
        assert ports.moved == [f"gateway: port {port} is taken, using {chosen}"]
        with pytest.raises(LaunchFailed, match=f"port {port} for gateway is in use"):
            Ports().require("gateway", port)


def state(launcher: ProcessId) -> SystemState:
    entry = ProcessEntry("gateway", launcher, HealthCheck(Probe.HTTP, "http://x/ready"), "gateway.log", True)
    return SystemState(
        launcher, True, "http://x", "redis://y", "z:1", (entry,), ("gateway: port 8080 is taken, using 1",)
    )


def test_the_state_file_keeps_the_system_and_recognises_a_dead_launcher(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    with pytest.raises(NotRunning, match="skyshore up"):
        file.running()
    mine = ProcessId.of(os.getpid())
    file.write(state(mine))
    assert file.running() == state(mine)
    file.write(state(ProcessId(mine.pid, mine.started_at_s - 1000)))  # same pid, another process
    with pytest.raises(NotRunning, match="skyshore down"):
        file.running()
    file.path.write_text('{"launcher": 3}')
    with pytest.raises(LaunchFailed, match="damaged"):
        file.read()


def test_one_launcher_per_folder(tmp_path: Path) -> None:
    with StateFile(tmp_path).locked(), pytest.raises(AlreadyRunning), StateFile(tmp_path).locked():
        pass
    with StateFile(tmp_path).locked():  # the lock was released
        pass


def test_log_lines_are_readable_and_lines_of_other_programs_are_kept() -> None:
    line = '{"event":"placed","level":"info","timestamp":"2026-11-22T10:11:12.5Z","process":"scheduler","task_id":"t1"}'
    assert render("scheduler", line, "cyan", 10).plain == "10:11:12  scheduler │ placed task_id=t1"
    assert render("node", "Traceback: oops", "cyan", 10).plain.endswith("node │ Traceback: oops")
    assert "boom" in render("node", '{"event":"x","exception":"boom"}', "cyan", 10).plain
