"""`skyshore simulate`: one scenario, one policy, one seed, in virtual time."""

from __future__ import annotations

import json
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.render import show_table
from experiments.plan.bundle import REPORT, Bundle
from experiments.plan.cell import CellResult
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.plan.job import CellJob, Engine
from experiments.report.tables import result_tables
from experiments.run.sweep import finish
from experiments.run.work import perform

INTERRUPTED = 130


def run_simulate(
    scenario: Path, policy: str, seed: int | None, load: float, out: Path | None, *, engine: str, as_json: bool
) -> int:
    """Returns the exit status: 0, or 130 after Ctrl-C.

    Raises:
        SkyshoreError, OSError: the scenario, the policy or the folder cannot be used.
    """
    inputs = Inputs.read(scenario)
    read = inputs.parse()
    seeds = (read.seed if seed is None else seed,)
    keep = out is not None
    experiment = Experiment(
        inputs, (policy or read.policy,), seeds, (load,), rows=keep, decisions=keep, engine=Engine.named(engine)
    )
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skyshore-simulate-")))
        bundle = Bundle.begin(folder, experiment)
        (job,) = bundle.jobs()
        result = _simulate(job, bundle.scratch / job.cell.name)
        if out is not None:
            bundle.accept(job.cell, bundle.scratch / job.cell.name)
            finish(bundle)
    if as_json:
        print(json.dumps({"scenario": read.name, **result.to_json()}))
    else:
        _show(result, out)
    return 0 if result.complete else INTERRUPTED


def _simulate(job: CellJob, folder: Path) -> CellResult:
    """Run it with a progress bar; the first Ctrl-C ends the run after the present event, with partial results."""
    folder.mkdir(parents=True)
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    columns = (TextColumn("simulate"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    before = signal.signal(signal.SIGINT, stop)
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)

            def progress(share: float) -> bool:
                bar.update(task, completed=share)
                return not stopped

            return perform(job, folder, progress)
    finally:
        signal.signal(signal.SIGINT, before)


def _show(result: CellResult, out: Path | None) -> None:
    console = Console()
    console.print(f"engine: {result.engine}", style="dim", highlight=False)
    for table in result_tables(result):
        show_table(console, table)
    if not result.complete:
        console.print("[bold yellow]INTERRUPTED[/]: the figures cover what was done until then", highlight=False)
    if out is not None:
        console.print(str(out / REPORT), highlight=False, soft_wrap=True)
