"""`skyshore compare`: runs a grid of cells with progress bars, keeps what is finished, writes the comparison."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.render import show_table
from experiments.bundle import Bundle, missing
from experiments.cell import Driver
from experiments.comparison import Group, compare
from experiments.experiment import Execute, Experiment, sweep
from experiments.inputs import Inputs
from experiments.processes import Event, Failed, Finished, Progressed, run_in_processes
from experiments.report import report_page
from experiments.tables import comparison_tables
from experiments.work import CellJob
from skyshore.domain.errors import InvalidTask

RUNS = Path("out")
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """As given on the command line."""

    scenario: Path
    policies: str
    baseline: str = ""
    seeds: int = 5
    first_seed: int | None = None
    loads: str = "1"
    driver: str = "sim"
    parallel: int = 0
    executor: str = "process"
    ray_address: str = ""
    out: Path | None = None
    rows: bool = True
    decisions: bool = False


@dataclass(slots=True)
class Sweep:
    """How a sweep went."""

    failures: dict[str, str] = field(default_factory=dict)
    """Reason by name of the cell."""
    interrupted: bool = False

    @property
    def status(self) -> int:
        """Exit status."""
        return INTERRUPTED if self.interrupted else 1 if self.failures else 0


def run_compare(options: CompareOptions, *, as_json: bool) -> int:
    """Returns the exit status: 0, 1 if cells failed, 130 after Ctrl-C.

    Raises:
        SkyshoreError, OSError: the scenario, the grid or the folder cannot be used.
    """
    experiment = _experiment(options)
    bundle = Bundle.begin(options.out or _folder(experiment), experiment)
    console = Console(stderr=True)
    swept = run_bundle(bundle, _executor(options), console)
    groups = finish(bundle, swept)
    if as_json:
        print((bundle.folder / "summary.json").read_text(encoding="utf-8"), end="")
    else:
        show(bundle, groups, swept)
    return swept.status


def run_bundle(bundle: Bundle, execute: Execute, console: Console) -> Sweep:
    """Run the cells that are not there yet; those of the live system after the others, one by one."""
    swept = Sweep()
    jobs = bundle.jobs()
    pending = [job for job in jobs if not bundle.is_done(job)]
    with _Bars(console, len(jobs), len(jobs) - len(pending)) as bars:
        try:
            for events in _sweeps(pending, execute, bundle.scratch):
                for event in events:
                    bars.show(event)
                    if isinstance(event, Finished):
                        bundle.accept(event.job.cell, event.folder)
                    elif isinstance(event, Failed):
                        swept.failures[event.job.cell.name] = event.reason
        except KeyboardInterrupt:
            swept.interrupted = True
    return swept


def finish(bundle: Bundle, swept: Sweep) -> list[Group]:
    """Compare what is there and seal the bundle."""
    experiment, results = bundle.experiment, bundle.results()
    groups = compare(results, experiment.policies, experiment.reference)
    absent = missing(bundle, results)
    summary = summary_of(bundle, groups, absent, swept.failures)
    bundle.seal(summary, report_page(bundle, groups, absent, swept.failures))
    return groups


def summary_of(
    bundle: Bundle, groups: Sequence[Group], absent: Sequence[str], failures: dict[str, str]
) -> dict[str, Any]:
    """The content of `summary.json`."""
    return {
        "format": "skyshore.summary/1",
        "scenario": bundle.experiment.inputs.parse().name,
        **bundle.experiment.to_json(),
        "folder": str(bundle.folder),
        "complete": not absent,
        "missing": list(absent),
        "failures": failures,
        "groups": [group.to_json() for group in groups],
    }


def show(bundle: Bundle, groups: Sequence[Group], swept: Sweep) -> None:
    """Print tables, failures and where the files are."""
    console = Console()
    for table in comparison_tables(groups, bundle.experiment.reference):
        show_table(console, table)
    for note in sorted({note for group in groups for result in group.results for note in result.notes}):
        console.print(note, style="yellow", markup=False, highlight=False)
    reasons = Counter(reason.strip().splitlines()[-1] for reason in swept.failures.values())
    for reason, count in reasons.items():
        console.print(f"{count} cells failed: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    if absent := missing(bundle, bundle.results()):
        console.print(
            f"INCOMPLETE: {len(absent)} of {len(bundle.jobs())} cells are missing; the same command goes on from here",
            style="bold yellow",
        )
    console.print(f"{bundle.folder / 'report.html'}\n{bundle.folder / 'summary.json'}", highlight=False, soft_wrap=True)


class _Bars:
    """One bar for the cells, one for every cell on its way."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._whole = self._progress.add_task("cells", total=cells, completed=done)
        self._cells: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Move the bar of the event's cell."""
        name = event.job.cell.name
        if isinstance(event, Progressed):
            if name not in self._cells:
                self._cells[name] = self._progress.add_task(f"  {name}", total=100)
            self._progress.update(self._cells[name], completed=round(100 * event.share))
            return
        if name in self._cells:
            self._progress.remove_task(self._cells.pop(name))
        self._progress.advance(self._whole)


def _sweeps(pending: Sequence[CellJob], execute: Execute, scratch: Path) -> Iterator[Iterator[Event]]:
    simulated = [job for job in pending if job.cell.driver is Driver.SIM]
    live = [job for job in pending if job.cell.driver is Driver.LIVE]
    if simulated:
        yield sweep(simulated, execute, scratch)
    if live:
        yield sweep(live, lambda jobs, folder: run_in_processes(jobs, folder, 1), scratch)


def _experiment(options: CompareOptions) -> Experiment:
    inputs = Inputs.read(options.scenario)
    scenario = inputs.parse()
    first = scenario.seed if options.first_seed is None else options.first_seed
    try:
        drivers = tuple(Driver(word) for word in _words(options.driver))
        loads = tuple(float(word) for word in _words(options.loads))
    except ValueError as error:
        raise InvalidTask(f"{error}; drivers are sim and live, loads are numbers", param="driver") from error
    return Experiment(
        inputs=inputs,
        policies=tuple(_words(options.policies)) or (scenario.policy,),
        seeds=tuple(range(first, first + options.seeds)),
        loads=loads,
        drivers=drivers,
        baseline=options.baseline,
        rows=options.rows,
        decisions=options.decisions,
    )


def _executor(options: CompareOptions) -> Execute:
    if options.executor != "process":
        raise InvalidTask(f"no executor '{options.executor}'; there are process and ray", param="executor")
    parallel = options.parallel or len(os.sched_getaffinity(0))
    return lambda jobs, scratch: run_in_processes(jobs, scratch, parallel)


def _folder(experiment: Experiment) -> Path:
    """The same for the same inputs, so that the same command goes on where it was stopped."""
    return RUNS / f"{experiment.inputs.parse().name}-{experiment.inputs.sha256[:8]}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
