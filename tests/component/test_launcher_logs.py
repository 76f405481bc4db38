"""A full disk under the logs: children are read on, so they neither block nor die, and processes serve on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cli.launcher.health import HealthCheck, Probe
from cli.launcher.log_file import RotatingLog
from cli.launcher.process import Child, ProcessSpec
from skyshore.runtime.healthcheck import grpc_problem
from tests.fakes.real_processes import free_port, until

FULL = Path("/dev/full")
"""Every write to it fails with ENOSPC."""
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this machine has no /dev/full")


async def test_a_child_is_read_on_when_its_log_cannot_be_written() -> None:
    script = "for n in range(40000): print('x' * 50)\nprint('last')"  # far more than a pipe holds
    spec = ProcessSpec("talker", (sys.executable, "-c", script), {}, HealthCheck(Probe.HTTP, "http://127.0.0.1:1"))
    shown: list[str] = []
    child = Child(spec, FULL, lambda name, line: shown.append(line))
    await child.start()
    async with asyncio.timeout(120):
        assert await child.wait() == 0
    assert (len(shown), shown[-1]) == (40_001, "last")


async def test_a_large_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(RotatingLog, most_bytes=200_000, kept=2)
    monkeypatch.setattr("cli.launcher.process.RotatingLog", small)
    script = "for n in range(40000): print(f'{n:050d}')"
    spec = ProcessSpec("talker", (sys.executable, "-c", script), {}, HealthCheck(Probe.HTTP, "http://127.0.0.1:1"))
    child = Child(spec, tmp_path / "talker.log", lambda name, line: None)
    await child.start()
    async with asyncio.timeout(120):
        assert await child.wait() == 0
    sizes = {name: os.stat(tmp_path / name).st_size for name in os.listdir(tmp_path)}
    assert set(sizes) == {"talker.log", "talker.log.1", "talker.log.2"}
    assert max(sizes.values()) <= 200_000
    assert child.last_lines(1) == f"{39_999:050d}"


@pytest.mark.parametrize("stderr", ["full", "closed"])
def test_a_process_serves_on_when_its_log_cannot_be_written(stderr: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {k: v for k, v in os.environ.items() if not k.startswith("SKYSHORE_")}
    env |= {
        "SKYSHORE_PROFILER_LISTEN": address,
        "SKYSHORE_REDIS_URL": "redis://127.0.0.1:1",
        "SKYSHORE_LOG_LEVEL": "debug",
    }
    redirect = "2>/dev/full" if stderr == "full" else "2>&-"
    command = ["sh", "-c", f'exec "{sys.executable}" -m services.profiler {redirect}']
    process = subprocess.Popen(command, env=env)
    try:
        until(lambda: not grpc_problem(address, 2.0), "it serves")
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)
