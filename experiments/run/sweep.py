"""Runs a bundle: the cells without a result, then the comparison, the report and the digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.figures.comparison import Group, compare
from experiments.plan.bundle import Bundle, missing
from experiments.plan.cell import Driver
from experiments.plan.job import CellJob
from experiments.report.fidelity import Fidelity, fidelity
from experiments.report.page import report_page
from experiments.run.processes import Event, Failed, Finished, run_in_processes

Execute = Callable[[Sequence[CellJob], Path], Iterator[Event]]
"""Runs jobs; the files of each go to a folder of its own below the path. Yields events."""


SUMMARY_FORMAT = "skyshore.summary/1"
TOLERANCE = 0.05
"""A prediction is right within this distance of the live mean, or within the difference between live runs."""


@dataclass(slots=True)
class Sweep:
    """How a sweep ended."""

    failures: dict[str, str] = field(default_factory=dict)
    """Reason by name of the cell."""
    interrupted: bool = False

    @property
    def status(self) -> int:
        """Exit status: 130 after Ctrl-C, 1 if cells failed."""
        return 130 if self.interrupted else 1 if self.failures else 0


def sweep(jobs: Sequence[CellJob], execute: Execute, scratch: Path) -> Iterator[Event]:
    """Run all jobs. A cell whose worker was lost is run once more; then it is reported as failed."""
    lost: list[CellJob] = []
    for event in execute(jobs, scratch):
        if isinstance(event, Failed) and event.crashed:
            lost.append(event.job)
        else:
            yield event
    if lost:
        yield from execute(lost, scratch)


def pending(bundle: Bundle) -> list[CellJob]:
    """Cells that have no complete result of these inputs and this code."""
    return [job for job in bundle.jobs() if not bundle.is_done(job)]


def run_cells(bundle: Bundle, execute: Execute, on_event: Callable[[Event], None]) -> Sweep:
    """Run pending cells: first the simulated ones, then the live ones one by one. Ctrl-C keeps finished cells."""
    swept = Sweep()
    try:
        for event in _events(bundle, execute):
            if isinstance(event, Finished):
                bundle.accept(event.job.cell, event.folder)
            elif isinstance(event, Failed):
                swept.failures[event.job.cell.name] = event.reason
            on_event(event)
    except KeyboardInterrupt:
        swept.interrupted = True
    return swept


def finish(bundle: Bundle, failures: Mapping[str, str] | None = None) -> list[Group]:
    """Compare the finished cells and seal the bundle."""
    experiment, results = bundle.experiment, bundle.results()
    groups = compare(results, experiment.contestants, experiment.reference)
    absent = missing(bundle, results)
    judged = [each.table(TOLERANCE) for each in fidelity_of(bundle)]
    report = report_page(bundle, groups, absent, failures or {}, judged)
    bundle.seal(summary_of(bundle, groups, absent, failures or {}), report)
    return groups


def summary_of(
    bundle: Bundle, groups: Sequence[Group], absent: Sequence[str], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `summary.json`."""
    return {
        "format": SUMMARY_FORMAT,
        "name": bundle.experiment.inputs.parse().name,
        **bundle.experiment.to_json(),
        "complete": not absent,
        "missing": list(absent),
        "failures": dict(failures),
        "groups": [group.to_json() for group in groups],
        "fidelity": [each.to_json() for each in fidelity_of(bundle)],
    }


def fidelity_of(bundle: Bundle) -> list[Fidelity]:
    """Simulation against live runs, where the experiment has both."""
    if len(bundle.experiment.drivers) < 2:
        return []
    return fidelity(bundle.results())


def _events(bundle: Bundle, execute: Execute) -> Iterator[Event]:
    jobs = pending(bundle)
    yield from sweep([job for job in jobs if job.cell.driver is Driver.SIM], execute, bundle.scratch)
    # The live system takes the whole machine: two at a time would measure each other.
    live = [job for job in jobs if job.cell.driver is Driver.LIVE]
    yield from sweep(live, lambda some, scratch: run_in_processes(some, scratch, 1), bundle.scratch)
