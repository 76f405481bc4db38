"""One cell of an experiment: a scenario under one policy, one seed, one load and one driver; and its result.

Cells are paired: the requests depend on scenario, seed and load, never on the policy or the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from skyshore.report.request_record import in_json
from skyshore.scenario import Scenario, read_scenario
from skyshore.scenario.files import schedule_of
from skyshore.workload.scaling import compress
from skyshore.workload.schedule import Schedule

BEST_FIXED_ARM, ORACLE_SCHEDULE = "best_fixed_arm", "oracle_schedule"
REFERENCES = (BEST_FIXED_ARM, ORACLE_SCHEDULE)
"""Names of reference schedules, used in place of a policy (see `experiments.run.references`)."""

Figures = Mapping[str, float | None]
"""Figures by name (see `skyshore.report.figures.FIGURES`); None for a figure that could not be measured."""


class Driver(StrEnum):
    """What runs a scenario."""

    SIM = "sim"
    """The simulator: virtual time."""
    LIVE = "live"
    """Processes of this machine, in real time."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of an experiment. Equal cells of `Driver.SIM` give equal results."""

    scenario: Path
    """Scenario file; the files it names are relative to it."""
    policy: str
    seed: int
    load: float = 1.0
    """Factor on the scenario's arrival rates."""
    driver: Driver = Driver.SIM

    @property
    def name(self) -> str:
        """Unique within one experiment; usable as the name of a folder."""
        return f"{self.policy}.seed{self.seed}.load{self.load:g}.{self.driver}"


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell that is ready to run: its scenario is read and checked, its requests are drawn."""

    cell: Cell
    scenario: Scenario
    """With the cell's policy and seed."""
    schedule: Schedule

    @property
    def folder(self) -> Path:
        """Folder that the paths in the scenario are relative to."""
        return self.cell.scenario.parent


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell. Rows of single requests go to a sink while it runs."""

    cell: Cell
    figures: Figures
    by_class: Mapping[str, Figures]
    """The same figures for each service class."""
    statuses: Mapping[str, int]
    """Requests by how they ended."""
    energy_sources: tuple[str, ...]
    """Where the joules come from: `modelled:…` or `measured:…`."""
    provenance: str
    """`modelled` (simulator), `emulated` (live, emulated nodes) or `measured` (live, real engines)."""
    schedule_sha256: str
    decisions_sha256: str
    """Fingerprint of task, arm and propensity of every decision, in order; empty for a live run."""
    complete: bool
    """False for a run that was interrupted: its figures cover what was done until then."""
    duration_s: float
    """Experiment time that rates are over."""
    wall_s: float = 0.0
    engine: str = ""
    """Of a simulation: `compiled`, or `plain` and why. The figures are the same."""
    notes: tuple[str, ...] = field(default=())
    """Notes for the reader, such as a load audit that failed."""

    def to_json(self) -> dict[str, object]:
        """Plain values without infinities or not-a-numbers (see `in_json`)."""
        content = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "cell"}
        return {
            "policy": self.cell.policy,
            "seed": self.cell.seed,
            "load": self.cell.load,
            "driver": str(self.cell.driver),
            **content,
            "energy_sources": list(self.energy_sources),
            "notes": list(self.notes),
            "statuses": dict(self.statuses),
            "figures": _plain(self.figures),
            "by_class": {name: _plain(figures) for name, figures in self.by_class.items()},
        }

    @classmethod
    def from_json(cls, cell: Cell, content: Mapping[str, Any]) -> CellResult:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for something else."""
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        known |= {name: tuple(content[name]) for name in ("energy_sources", "notes")}
        known["figures"] = _numbers(content["figures"])
        known["by_class"] = {name: _numbers(figures) for name, figures in content["by_class"].items()}
        return cls(cell=cell, **known)


def plan(cell: Cell) -> PlannedCell:
    """Read the scenario and draw the requests.

    Raises:
        InvalidScenario, InvalidSchedule: a file that cannot be used.
        OSError: the scenario cannot be read.
    """
    scenario = read_scenario(cell.scenario.read_text(encoding="utf-8"), str(cell.scenario))
    scenario = scenario.model_copy(update={"seed": cell.seed, "policy": cell.policy})
    from_file = bool(scenario.workload.schedule)
    if not from_file:
        scenario = at_load(scenario, cell.load)
    schedule = schedule_of(scenario, cell.scenario.parent)
    return PlannedCell(cell, scenario, compress(schedule, cell.load) if from_file and cell.load != 1 else schedule)


def at_load(scenario: Scenario, load: float) -> Scenario:
    """The same scenario with `load` times the work a second.

    Language-model sources scale by rate; cameras scale by number, and the remainder by frame rate.
    """
    if load == 1:
        return scenario
    llm = tuple(source.model_copy(update={"rate_per_s": source.rate_per_s * load}) for source in scenario.workload.llm)
    cameras = []
    for table in scenario.workload.cameras:
        count = max(1, round(table.count * load))
        fps = max(table.fps * table.count * load / count, 1 / table.segment_s)
        cameras.append(table.model_copy(update={"count": count, "fps": fps}))
    workload = scenario.workload.model_copy(update={"llm": llm, "cameras": tuple(cameras)})
    return scenario.model_copy(update={"workload": workload})


def _plain(figures: Figures) -> dict[str, object]:
    return {name: None if value is None else in_json(value) for name, value in figures.items()}


def _numbers(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in figures.items()}
