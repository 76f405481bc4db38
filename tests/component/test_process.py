"""How a process ends when it cannot begin: one sentence and status 1; a bug keeps its traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ("services.profiler", "services.scheduler", "services.links", "services.spans", "gateway", "edge_node")


def ended(module: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=150, check=False
    )


@pytest.mark.parametrize("module", PROCESSES)
def test_a_setting_that_cannot_be_is_named_in_one_sentence(module: str) -> None:
    done = ended(module, SKYSHORE_LOG_JSON="perhaps")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "log_json" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named_with_its_address() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = ended("gateway", SKYSHORE_GATEWAY_LISTEN=address)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert address in done.stderr
    assert "Traceback" not in done.stderr
