"""`skyshore compare`: runs a grid of cells, keeps what is finished, prints and writes the comparison."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cli.extras import require
from cli.render import show_table
from cli.sweep_bars import SweepBars
from experiments.figures.comparison import Group, warnings_of
from experiments.plan.bundle import REPORT, SUMMARY, Bundle, missing
from experiments.plan.cell import Driver
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.plan.job import Engine
from experiments.report.tables import comparison_tables
from experiments.run.processes import run_in_processes
from experiments.run.sweep import TOLERANCE, Execute, Sweep, fidelity_of, finish, pending, run_cells
from skyshore.domain.errors import InvalidTask

RUNS = Path("out")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Options of the command line."""

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
    bound: bool = False
    engine: str = "auto"


def run_compare(options: CompareOptions, *, as_json: bool) -> int:
    """Returns the exit status: 0, 1 if cells failed, 130 after Ctrl-C.

    Raises:
        SkyshoreError, OSError: the scenario, the grid or the folder cannot be used.
    """
    experiment = _experiment(options)
    bundle = Bundle.begin(options.out or _folder(experiment), experiment)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system ends a job so; treat it as Ctrl-C
    with SweepBars(Console(stderr=True), len(bundle.jobs()), len(bundle.jobs()) - len(pending(bundle))) as bars:
        swept = run_cells(bundle, executor(options), bars.show)
    groups = finish(bundle, swept.failures)
    if as_json:
        print((bundle.folder / SUMMARY).read_text(encoding="utf-8"), end="")
    else:
        show(bundle, groups, swept)
    return swept.status


def show(bundle: Bundle, groups: Sequence[Group], swept: Sweep) -> None:
    """Print tables, failures and where the files are."""
    console = Console()
    for table in comparison_tables(groups, bundle.experiment.reference):
        show_table(console, table)
    for judged in fidelity_of(bundle):
        show_table(console, judged.table(TOLERANCE))
    for note in warnings_of(groups):
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    reasons = Counter(reason.strip().splitlines()[-1] for reason in swept.failures.values())
    for reason, count in reasons.items():
        console.print(f"{count} cells failed: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    if absent := missing(bundle, bundle.results()):
        console.print(
            f"INCOMPLETE: {len(absent)} of {len(bundle.jobs())} cells are missing; the same command continues",
            style="bold yellow",
        )
    console.print(f"{bundle.folder / REPORT}\n{bundle.folder / SUMMARY}", highlight=False, soft_wrap=True)


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
        engine=Engine.named(options.engine),
        bound=options.bound,
    )


def executor(options: CompareOptions) -> Execute:
    """What runs the cells.

    Raises:
        InvalidTask: a name that is none.
        NotFound: Ray is not installed.
    """
    parallel = options.parallel or len(os.sched_getaffinity(0))
    match options.executor:
        case "process":
            return lambda jobs, scratch: run_in_processes(jobs, scratch, parallel)
        case "ray":
            require("ray", "ray")
            from experiments.run.ray_cluster import run_on_ray  # noqa: PLC0415 (an extra of its own)

            return lambda jobs, scratch: run_on_ray(jobs, scratch, options.ray_address, parallel)
        case other:
            raise InvalidTask(f"no executor '{other}'; choose process or ray", param="executor")


def _folder(experiment: Experiment) -> Path:
    """Equal inputs have the same folder, so that the same command continues where it was stopped."""
    return RUNS / f"{experiment.inputs.parse().name}-{experiment.inputs.sha256[:8]}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
