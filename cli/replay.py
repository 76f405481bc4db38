"""`skyshore replay`: plays a schedule with a progress bar, prints the table, writes the JSON beside it."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.render import show_table
from loadgen.clips import find_file
from loadgen.pacing import Run
from loadgen.replay import prepare
from loadgen.result import ReplayResult
from skyshore.catalogue.store import clip, ready
from skyshore.catalogue.table import ENTRIES
from skyshore.workload.prompts import TokenCounter
from skyshore.workload.schedule import Schedule

REFRESH_S = 0.25


def find_clip(name: str) -> Path:
    """A catalogue clip or a file.

    Raises:
        NotFound: neither.
    """
    return clip(name) if name in ENTRIES else find_file(name)


def play_schedule(
    schedule: Schedule, url: str, policy: str, console: Console, *, model: str = "", tokenizer: str = ""
) -> ReplayResult:
    """Play it; Ctrl-C ends it early with what there is.

    Raises:
        NotFound, InvalidMedia: a clip of the schedule, or the tokenizer.
    """
    with console.status("making the requests"):
        count_tokens = _counter(tokenizer) if tokenizer else None
        run = prepare(schedule, url, find_clip, model=model, count_tokens=count_tokens)
    # What was made so far lives to the end: collecting garbage in it again and again would make the client late.
    gc.collect()
    gc.freeze()
    started_at_s = time.time()
    try:
        uvloop.run(_play(run, schedule.duration_s, console))
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
        console.print(f"[red]{count} x {code}", highlight=False)
    console.print(f"{path}\n{rows}", highlight=False)


def _counter(model: str) -> TokenCounter:
    from skyshore.adapters.tokenizer import Tokenizer  # noqa: PLC0415 (needs the profiler extra)

    opened = Tokenizer.open(ready(model))
    return lambda text: len(opened.encode(text))


async def _play(run: Run, duration_s: float, console: Console) -> None:
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
        playing = asyncio.create_task(run.play())
        while not playing.done():
            await asyncio.wait({playing}, timeout=REFRESH_S)
            now = run.progress()
            counts = f"{now.sent} sent, {now.in_flight} in flight, {now.succeeded} ok, {now.failed} failed"
            bar.update(task, completed=min(max(0.0, now.now_s), duration_s), counts=counts, refresh=True)
    await playing
