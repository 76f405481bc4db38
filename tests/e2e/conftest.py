"""A whole system, all processes, started and stopped by the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

UP_S = 200


@dataclass(frozen=True)
class Skyshore:
    """The `skyshore` command with a state folder of its own."""

    state: Path

    def __call__(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SKYSHORE_STATE_DIR": str(self.state), "COLUMNS": "160"}
        env.pop("SKYSHORE_URL", None)
        env.pop("SKYSHORE_REDIS_URL", None)
        command = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout_s, check=False)
        if check and done.returncode:
            raise AssertionError(
                f"skyshore {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def json(self, *arguments: str, check: bool = True) -> Any:
        return json.loads(self(*arguments, "--json", check=check).stdout)

    def processes(self) -> dict[str, psutil.Process]:
        """The system's processes by name, the launcher among them."""
        written = json.loads((self.state / "system.json").read_text())
        found = {entry["name"]: psutil.Process(entry["id"]["pid"]) for entry in written["processes"]}
        return found | {"launcher": psutil.Process(written["launcher"]["pid"])}

    @property
    def url(self) -> str:
        """The gateway's address."""
        return str(json.loads((self.state / "system.json").read_text())["gateway_url"])


@pytest.fixture
def skyshore(tmp_path: Path) -> Iterator[Skyshore]:
    """Nothing runs yet; whatever the test leaves is stopped."""
    command = Skyshore(tmp_path / "state")
    yield command
    command("down", check=False)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Skyshore]:
    """A system of emulated nodes, shared by a module."""
    command = Skyshore(tmp_path_factory.mktemp("emulated"))
    command("up", "--detach", "--any-ports", "--emulated", timeout_s=UP_S)
    yield command
    command("down")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Skyshore]:
    """A system with the real models, fetched if need be."""
    from rich.console import Console

    from cli.up import MODELS, fetch_missing

    if missing := fetch_missing((*MODELS, "bikes"), Console(stderr=True)):
        pytest.skip(f"models are not in the cache and cannot be fetched: {'; '.join(missing)}")
    command = Skyshore(tmp_path_factory.mktemp("real"))
    command("up", "--detach", "--any-ports", timeout_s=UP_S)
    yield command
    command("down")
