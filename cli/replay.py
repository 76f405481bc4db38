"""`skyshore replay`: plays a schedule with a progress bar, prints the table, writes the JSON beside it."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.connection import state_folder
from cli.render import say, show_table
from experiments.run.live_faults import play_faults, restart_links
from loadgen.clips import find_file
from loadgen.pacing import START_DELAY_S, LoadRun
from loadgen.replay import prepare
from loadgen.result import ReplayResult
from skyshore.catalogue.store import clip, ready
from skyshore.catalogue.table import ENTRIES
from skyshore.domain.errors import InvalidTask
from skyshore.engines.emulated.answer import CHARACTERS_PER_TOKEN
from skyshore.scenario import Scenario, read_scenario
from skyshore.scenario.faults import FaultTable
from skyshore.scenario.files import read_schedule, schedule_of
from skyshore.text_file import read_text
from skyshore.workload.prompts import TokenCounter
from skyshore.workload.schedule import Schedule

REFRESH_S = 0.25
SYSTEM_START_DELAY_S = 1.5
"""Time before the first request, so that links and client agree on time 0 by then."""


def find_clip(name: str) -> Path:
    """A catalogue clip or a file.

    Raises:
        NotFound: neither.
    """
    return clip(name) if name in ENTRIES else find_file(name)


EMULATED = "emulated"
"""Name of the tokenizer of emulated engines, which count letters."""


@dataclass(frozen=True, slots=True)
class ReplayedSystem:
    """The system that runs a scenario while it is replayed: its links follow the clock, its faults are played."""

    links_url: str = ""
    control_socket: str = ""
    faults: tuple[FaultTable, ...] = ()


@dataclass(frozen=True, slots=True)
class Play:
    """What to play."""

    schedule: Schedule
    stage: ReplayedSystem = ReplayedSystem()
    tokenizer: str = ""


def read_play(path: Path, url: str) -> Play:
    """Read a schedule file; or a scenario, with the same requests that `skyshore simulate` uses.

    A scenario's faults and links need the system that was started from it here and answers at `url`.

    Raises:
        InvalidScenario, InvalidSchedule: a file that cannot be used.
        NotFound: no such file.
        InvalidTask: the scenario has faults or links, and another system answers.
    """
    if path.suffix != ".toml":
        return Play(read_schedule(path))
    scenario = read_scenario(read_text(path), str(path))
    schedule = schedule_of(scenario, path.parent)
    emulated = all(table.engine == "emulated" for table in scenario.nodes)
    return Play(schedule, _stage(scenario, path, url), EMULATED if emulated else "")


def _stage(scenario: Scenario, path: Path, url: str) -> ReplayedSystem:
    from cli.launcher.state_file import StateFile  # noqa: PLC0415 (needs psutil; a plain replay does not)

    state = StateFile(state_folder()).read()
    if state is not None and state.alive and state.gateway_url == url and state.scenario == str(path.absolute()):
        return ReplayedSystem(state.links_url, state.control_socket, scenario.faults)
    if scenario.links or scenario.faults:
        raise InvalidTask(f"no system that runs {path} here answers at {url}; start it with `skyshore up {path}`")
    return ReplayedSystem()


def play_schedule(
    schedule: Schedule,
    url: str,
    policy: str,
    console: Console,
    *,
    model: str = "",
    tokenizer: str = "",
    stage: ReplayedSystem = ReplayedSystem(),
) -> ReplayResult:
    """Play the schedule; Ctrl-C ends it with partial results. `tokenizer` is a cached model's name, or `emulated`.

    Raises:
        NotFound, InvalidMedia: a clip of the schedule, or the tokenizer.
        NodeUnavailable: a fault could not be played.
    """
    with console.status("making the requests"):
        letters = CHARACTERS_PER_TOKEN if tokenizer == EMULATED else 0
        count_tokens = _counter(tokenizer) if tokenizer and not letters else None
        run = prepare(schedule, url, find_clip, model=model, count_tokens=count_tokens, letters_per_token=letters)
    # Objects made so far live to the end: collecting garbage among them again would make the client late.
    gc.collect()
    gc.freeze()
    started_at_s = time.time()
    try:
        uvloop.run(_play(run, schedule.duration_s, console, stage))
    finally:
        gc.unfreeze()
    return ReplayResult.of(schedule, run, url=url, policy=policy, started_at_s=started_at_s)


def show_result(result: ReplayResult, path: Path, console: Console, *, as_json: bool) -> None:
    """Write the files, then print the tables or the JSON."""
    rows = result.write(path)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    for table in result.tables():
        show_table(console, table)
    for code, count in result.whole.errors.items():
        say(console, (f"{count} x {code}", "red"))
    say(console, f"{path}\n{rows}")


def _counter(model: str) -> TokenCounter:
    from skyshore.adapters.tokenizer import Tokenizer  # noqa: PLC0415 (needs the profiler extra)

    opened = Tokenizer.open(ready(model))
    return lambda text: len(opened.encode(text))


async def _play(run: LoadRun, duration_s: float, console: Console, stage: ReplayedSystem) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, run.stop)
    columns = (
        TextColumn("replay"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("", total=duration_s, counts="")
        zero_s = loop.time() + (SYSTEM_START_DELAY_S if stage.links_url or stage.faults else START_DELAY_S)
        faults = asyncio.create_task(play_faults(stage.control_socket, stage.faults, zero_s))
        await asyncio.to_thread(restart_links, stage.links_url, zero_s - loop.time())
        playing = asyncio.create_task(run.play(zero_s - loop.time()))
        while not playing.done():
            await asyncio.wait({playing}, timeout=REFRESH_S)
            if faults.done() and faults.exception() is not None:
                run.stop()
            now = run.progress()
            counts = f"{now.sent} sent, {now.in_flight} in flight, {now.succeeded} ok, {now.failed} failed"
            bar.update(task, completed=min(max(0.0, now.now_s), duration_s), counts=counts, refresh=True)
    await playing
    faults.cancel()
    await asyncio.wait([faults])
    if not faults.cancelled():
        faults.result()
