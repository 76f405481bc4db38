"""`skyshore up`: fetches missing models on request, then starts the launcher."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console

from cli.connection import state_folder
from cli.launcher.control import LOG_FILE, run_system, start_detached
from cli.launcher.log_file import RotatingLog, TextLog
from cli.launcher.state_file import SystemState
from cli.launcher.system_plan import SystemOptions
from cli.models import is_ready
from cli.render import say
from skyshore.catalogue.entry import Kind
from skyshore.catalogue.store import fetch
from skyshore.catalogue.table import ENTRIES
from skyshore.domain.errors import SkyshoreError
from skyshore.nodemodel.clips import CLIP_MODEL
from skyshore.runtime.logs import SafeStream

MODELS = ("ssd-mobilenet", "nanodet", "smollm2-135m")
"""The models of the nodes of `cli.launcher.system_plan`."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of the command line."""

    scenario: Path | None = None
    emulated: bool = False
    fetch: bool = False
    port: int | None = None
    any_ports: bool = False
    policy: str = ""
    seed: int | None = None
    log_level: str = "info"
    restart: bool = True

    def arguments(self) -> list[str]:
        """The command line of these options, without `--fetch`: the foreground process fetches the models."""
        given = [str(self.scenario)] if self.scenario is not None else []
        given += ["--emulated"] if self.emulated else []
        given += ["--port", str(self.port)] if self.port is not None else []
        given += ["--any-ports"] if self.any_ports else []
        given += ["--policy", self.policy] if self.policy else []
        given += ["--seed", str(self.seed)] if self.seed is not None else []
        given += [] if self.restart else ["--no-restart"]
        return [*given, "--log-level", self.log_level]


def up_foreground(options: UpOptions) -> None:
    """Run until Ctrl-C. Raises LaunchFailed, AlreadyRunning."""
    console = _launcher_console()
    _fetch_if_asked(options, console)
    system = SystemOptions(
        state_folder=state_folder(),
        scenario=options.scenario,
        emulated=options.emulated,
        gateway_port=options.port,
        any_ports=options.any_ports,
        redis_url=os.environ.get("SKYSHORE_REDIS_URL", ""),
        policy=options.policy,
        seed=options.seed,
        log_level=options.log_level,
        restart=options.restart,
    )
    asyncio.run(run_system(system, cached_models(), console))


def _launcher_console() -> Console:
    """Where the launcher writes: a log of a bounded size in the background, else the terminal, which may be closed."""
    path = os.environ.get(LOG_FILE, "")
    file = TextLog(RotatingLog(Path(path))) if path else SafeStream(sys.stdout)
    return Console(file=cast(TextIO, file))


def up_detached(options: UpOptions, ready_s: float) -> SystemState:
    """Run in the background; returns when requests are answered. Raises LaunchFailed, AlreadyRunning."""
    console = Console(stderr=True)
    _fetch_if_asked(options, console)
    with console.status("starting"):
        state = start_detached(options.arguments(), state_folder(), ready_s)
    for note in state.notes:
        say(console, (note, "yellow"))
    say(console, ("ready:", "green"), f" {state.gateway_url}  (`skyshore status`, `skyshore down`)")
    return state


def cached_models() -> set[str]:
    """Names of the models in the cache, and of the shipped clip classifier if torch is installed."""
    shipped = {CLIP_MODEL} if find_spec("torch") else set[str]()
    return shipped | {entry.name for entry in ENTRIES.values() if entry.kind is not Kind.CLIP and is_ready(entry.name)}


def fetch_missing(names: tuple[str, ...], console: Console) -> list[str]:
    """Fetch what is not in the cache. Returns what could not be fetched, each with the reason, and prints it."""
    failed = []
    for name in names:
        if is_ready(name):
            continue
        try:
            with console.status(f"fetching {name}") as status:
                fetch(name, progress=lambda stage, name=name: status.update(f"{name}: {stage}"))  # type: ignore[misc]
            say(console, ("fetched", "green"), f" {name}")
        except SkyshoreError as error:
            failed.append(f"{name}: {error.message}")
            say(console, (f"cannot fetch {name}:", "yellow"), f" {error.message}")
    return failed


def _fetch_if_asked(options: UpOptions, console: Console) -> None:
    if options.fetch and not options.emulated:
        fetch_missing(MODELS, console)
