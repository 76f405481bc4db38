"""A system of processes for one live run: started by the launcher's own command, found by its state file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skyshore.domain.errors import NodeUnavailable

START_S = 240.0
STOP_S = 90.0


@dataclass(frozen=True, slots=True)
class LiveSystem:
    """Addresses of the system."""

    gateway_url: str
    redis_url: str
    links_url: str
    """Empty where no link is emulated."""
    control_socket: str
    """Socket on which its launcher stops, starts and slows down nodes."""


@contextmanager
def live_system(scenario: Path, policy: str, seed: int, *, keep_event_log: Path | None = None) -> Iterator[LiveSystem]:
    """Run `skyshore up SCENARIO` on free ports and in a temporary folder; stop it at the end.

    The scheduler's events are saved in `keep_event_log`, which is complete only after the scheduler has ended.

    Raises:
        NodeUnavailable: it did not come up; its own message is quoted.
    """
    with tempfile.TemporaryDirectory(prefix="skyshore-run-") as folder:
        env = os.environ | {"SKYSHORE_STATE_DIR": folder}
        env.pop("SKYSHORE_REDIS_URL", None)  # a run has its own store, empty at the start
        words = ["up", str(scenario), "--detach", "--any-ports", "--policy", policy, "--seed", str(seed)]
        words += ["--no-restart"]  # a process that ends by itself makes the run invalid: it must not be hidden
        try:
            _skyshore([*words, "--log-level", "warning"], env, START_S)
            said = json.loads((Path(folder) / "system.json").read_text(encoding="utf-8"))
            yield LiveSystem(
                gateway_url=said["gateway_url"],
                redis_url=said["redis_url"],
                links_url=said["links_url"],
                control_socket=said["control_socket"],
            )
        finally:
            _skyshore(["down"], env, STOP_S)
            log = Path(folder) / "events.jsonl"
            if keep_event_log is not None and log.is_file():
                shutil.copyfile(log, keep_event_log)


def _skyshore(words: list[str], env: dict[str, str], timeout_s: float) -> None:
    command = [sys.executable, "-m", "cli", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise NodeUnavailable(f"`skyshore {' '.join(words)}` failed: {done.stderr.strip()}")
