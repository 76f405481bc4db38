"""An emulated node that is slower than it says: by its file, and by the control socket of the launcher."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli.launcher.control_socket import control_socket
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.log_view import LogView
from cli.launcher.nodes import DRIFT_FILE
from cli.launcher.process import ProcessSpec
from cli.launcher.supervisor import Supervisor
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.nodemodel.speed import LlmSpeed
from skyshore.worker.engines import follow_drift
from tests.fakes.virtual_time import run_in_virtual_time

SPEED = LlmSpeed("m", "modelled:test", iteration_s=0.02)


async def took_s(engine: EmulatedLlmEngine) -> float:
    request = LlmInput(prompt="x" * 40, sampling=Sampling(max_tokens=10, ignore_eos=True))
    async for event in engine.generate(Task("t", TaskKind.LLM), request):
        if isinstance(event, WorkerOutcome):
            return event.prefill_s + event.compute_s
    raise AssertionError("no outcome")


def test_an_engine_follows_its_file_and_recovers(tmp_path: Path) -> None:
    file = tmp_path / "n.drift"

    async def run() -> None:
        engine = await EmulatedLlmEngine.start(SPEED)
        following = asyncio.create_task(follow_drift(file, [engine]))

        async def until(slower: bool) -> None:
            while (await took_s(engine) > 0.5) is not slower:
                pass

        assert await took_s(engine) == pytest.approx(0.2)
        file.write_text("4\n")
        await until(slower=True)
        assert await took_s(engine) == pytest.approx(0.8)
        file.unlink()
        await until(slower=False)
        following.cancel()
        await asyncio.wait([following])
        await engine.close()

    run_in_virtual_time(run())


async def test_the_control_socket_slows_emulated_nodes_only_and_refuses_in_words(tmp_path: Path) -> None:
    file = tmp_path / "a.drift"
    file.write_text("9\n")
    sleep = (sys.executable, "-c", "import time; time.sleep(60)")
    health = HealthCheck(Probe.GRPC, "127.0.0.1:1")
    specs = [
        ProcessSpec("a", sleep, {DRIFT_FILE: str(file)}, health, essential=False),
        ProcessSpec("b", sleep, {}, health, essential=False),
        ProcessSpec("core", sleep, {}, health),
    ]
    console = Console(file=(tmp_path / "said").open("w"))
    supervisor = Supervisor([specs], tmp_path, LogView(console, ("a", "b", "core")))
    for child in supervisor.children:
        await child.start()
    watching = asyncio.create_task(supervisor.watch())
    try:
        async with control_socket(supervisor) as path:
            reader, writer = await asyncio.open_unix_connection(path)

            async def ask(**command: object) -> str:
                writer.write(json.dumps(command).encode() + b"\n")
                return str(json.loads(await reader.readline()).get("error", ""))

            assert await ask(effect="slow_node", node="a", slowdown=2.5) == ""
            assert float(file.read_text()) == 2.5
            assert "not emulated" in await ask(effect="slow_node", node="b", slowdown=2)
            assert "no process 'z'; the processes are a, b, core" in await ask(effect="stop_node", node="z")
            assert "is not a node" in await ask(effect="stop_node", node="core")
            assert "already runs; stop it first" in await ask(effect="start_node", node="a")
            assert "not a command like" in await ask(nothing=1)
            assert "'stop_node', 'start_node', 'slow_node'" in await ask(effect="dance", node="a")
            before = supervisor.children[0].pid
            assert await ask(effect="stop_node", node="a") == ""
            end_s = time.monotonic() + 30
            while supervisor.children[0].returncode is None:
                assert time.monotonic() < end_s
                await asyncio.sleep(0.01)
            assert await ask(effect="start_node", node="a") == ""
            assert supervisor.children[0].pid != before
            assert not watching.done(), "the end of a node ends nothing"
            writer.close()
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        supervisor.kill()
        await supervisor.stop()
        console.file.close()
