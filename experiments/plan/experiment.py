"""A grid of cells: policies × seeds × loads × drivers over one scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from experiments.plan.cell import REFERENCES, Cell, Driver
from experiments.plan.code_version import sources_sha256
from experiments.plan.inputs import Inputs
from experiments.plan.job import CellJob, Engine
from skyshore.domain.errors import InvalidTask, NotFound
from skyshore.policies.registry import POLICIES


@dataclass(frozen=True)
class Experiment:
    """What is compared. Every policy gets the same requests: they depend on seed and load only.

    Raises:
        InvalidTask: a grid that cannot be run or compared.
        NotFound: a policy that the registry does not have.
    """

    inputs: Inputs
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    loads: tuple[float, ...] = (1.0,)
    drivers: tuple[Driver, ...] = (Driver.SIM,)
    baseline: str = ""
    """Baseline policy; by default the first."""
    rows: bool = True
    decisions: bool = False
    engine: Engine = Engine.AUTO
    """Simulation engine; the figures do not depend on it."""
    bound: bool = False
    """Also run the references, and compute the regret against them and against the bound (simulated cells)."""

    def __post_init__(self) -> None:
        """Check the grid before anything runs."""
        for name, values in (("policies", self.policies), ("seeds", self.seeds), ("loads", self.loads)):
            if not values or len(set(values)) < len(values):
                raise InvalidTask(f"{name} must be given, each once: {', '.join(map(str, values))}", param=name)
        for policy in self.policies:
            if policy not in POLICIES:
                raise NotFound(f"no policy '{policy}'; known are {', '.join(sorted(POLICIES))}", param="policies")
        if not all(0 < load < math.inf for load in self.loads):
            raise InvalidTask("a load is a factor above 0 on the scenario's arrival rates", param="loads")
        if self.baseline and self.baseline not in self.policies:
            policies = ", ".join(self.policies)
            raise InvalidTask(f"the baseline '{self.baseline}' is not one of {policies}", param="baseline")

    @property
    def reference(self) -> str:
        """Name of the baseline policy."""
        return self.baseline or self.policies[0]

    @property
    def contestants(self) -> tuple[str, ...]:
        """The policies, then the references."""
        return (*self.policies, *REFERENCES) if self.bound else self.policies

    def jobs(self, scenario: Path) -> list[CellJob]:
        """All cells. Cells that are compared are neighbours, so that an interrupted sweep has whole pairs."""
        grid = product(self.drivers, self.seeds, self.loads, self.contestants)
        cells = [Cell(scenario, policy, seed, load, driver) for driver, seed, load, policy in grid]
        return [self._job(cell) for cell in cells if cell.driver is Driver.SIM or cell.policy not in REFERENCES]

    def to_json(self) -> dict[str, Any]:
        """All of it but the inputs themselves."""
        return {
            "scenario": self.inputs.scenario,
            "inputs_sha256": self.inputs.sha256,
            "policies": list(self.policies),
            "baseline": self.reference,
            "seeds": list(self.seeds),
            "loads": list(self.loads),
            "drivers": [str(driver) for driver in self.drivers],
            "rows": self.rows,
            "decisions": self.decisions,
            "bound": self.bound,
        }

    @classmethod
    def from_json(cls, inputs: Inputs, content: dict[str, Any]) -> Experiment:
        """Read what `to_json` wrote. Raises KeyError or ValueError for something else."""
        return cls(
            inputs=inputs,
            policies=tuple(content["policies"]),
            seeds=tuple(content["seeds"]),
            loads=tuple(content["loads"]),
            drivers=tuple(Driver(driver) for driver in content["drivers"]),
            baseline=content["baseline"],
            rows=content["rows"],
            decisions=content["decisions"],
            bound=content["bound"],
        )

    def _job(self, cell: Cell) -> CellJob:
        return CellJob(
            cell, self.inputs.sha256, sources_sha256(), rows=self.rows, decisions=self.decisions, engine=self.engine
        )
