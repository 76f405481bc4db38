"""A system of local processes, started and stopped by the `skyshore` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

UP_S = 200


@dataclass(frozen=True)
class LocalSystem:
    """The `skyshore` command with its own state folder, and the system that it starts."""

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
        """Name -> process of the system, with the launcher."""
        written = json.loads((self.state / "system.json").read_text())
        found = {entry["name"]: psutil.Process(entry["id"]["pid"]) for entry in written["processes"]}
        return found | {"launcher": psutil.Process(written["launcher"]["pid"])}

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return str(json.loads((self.state / "system.json").read_text())["gateway_url"])
