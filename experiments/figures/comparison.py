"""From cells to a comparison: every figure over the seeds, and against the baseline on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from experiments.plan.cell import BEST_FIXED_ARM, REFERENCES, CellResult, Driver
from skyshore.report.figures import FIGURES
from skyshore.report.load_audit import Verdict
from skyshore.report.request_record import in_json
from skyshore.report.statistics import PairedDifference, mean_interval, paired_difference


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure of one policy over the seeds."""

    values: Mapping[int, float]
    """By seed; seeds without the figure are left out."""
    mean: float
    low: float
    high: float
    """95 % interval of the mean; not a number for a single seed."""
    versus: PairedDifference | None = None
    """This policy minus the baseline, on the seeds that both have; None for the baseline itself."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content = {name: in_json(getattr(self, name)) for name in ("mean", "low", "high")}
        content["values"] = {str(seed): in_json(value) for seed, value in self.values.items()}
        if self.versus is not None:
            found = {name: in_json(value) for name, value in asdict(self.versus).items()}
            content["versus_baseline"] = found | {"distinguishable": self.versus.distinguishable}
        return content


@dataclass(frozen=True, slots=True)
class Group:
    """One policy at one load under one driver."""

    driver: Driver
    load: float
    policy: str
    results: tuple[CellResult, ...]
    """In order of seed."""
    figures: Mapping[str, Estimate]
    by_class: Mapping[str, Mapping[str, Estimate]]

    @property
    def provenance(self) -> str:
        """`modelled`, `emulated` or `measured`; several are joined by a comma."""
        return ", ".join(sorted({result.provenance for result in self.results}))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "driver": str(self.driver),
            "load": self.load,
            "policy": self.policy,
            "provenance": self.provenance,
            "energy_sources": sorted({source for result in self.results for source in result.energy_sources}),
            "seeds": [result.cell.seed for result in self.results],
            "notes": sorted({note for result in self.results for note in result.notes}),
            "figures": {name: estimate.to_json() for name, estimate in self.figures.items()},
            "by_class": {
                service_class: {name: estimate.to_json() for name, estimate in figures.items()}
                for service_class, figures in self.by_class.items()
            },
        }


def warnings_of(groups: Sequence[Group]) -> list[str]:
    """Notes of runs whose figures must not be trusted, or only with care. Their first word is the audit's verdict."""
    notes = {note for group in groups for result in group.results for note in result.notes}
    return sorted(note for note in notes if note.startswith((Verdict.INVALID, Verdict.DEGRADED)))


def compare(results: Sequence[CellResult], policies: Sequence[str], baseline: str) -> list[Group]:
    """Group by driver, load and policy, in that order; policies in the given order."""
    grouped: dict[tuple[Driver, float, str], list[CellResult]] = {}
    for result in sorted(with_regret(results), key=lambda result: result.cell.seed):
        cell = result.cell
        grouped.setdefault((cell.driver, cell.load, cell.policy), []).append(result)
    order = {policy: place for place, policy in enumerate(policies)}
    groups = []
    for key in sorted(grouped, key=lambda key: (key[0] is Driver.LIVE, key[1], order[key[2]])):
        driver, load, policy = key
        theirs = None if policy == baseline else grouped.get((driver, load, baseline), [])
        groups.append(_group(driver, load, policy, grouped[key], theirs))
    return groups


def _group(
    driver: Driver, load: float, policy: str, ours: Sequence[CellResult], theirs: Sequence[CellResult] | None
) -> Group:
    names = sorted({name for result in ours for name in result.by_class})
    by_class = {
        name: _estimates(
            {r.cell.seed: r.by_class[name] for r in ours if name in r.by_class},
            None if theirs is None else {r.cell.seed: r.by_class[name] for r in theirs if name in r.by_class},
        )
        for name in names
    }
    figures = _estimates(
        {r.cell.seed: r.figures for r in ours}, None if theirs is None else {r.cell.seed: r.figures for r in theirs}
    )
    return Group(driver, load, policy, tuple(ours), figures, by_class)


def with_regret(results: Sequence[CellResult]) -> list[CellResult]:
    """The same results with their regret: deadlines met by a reference minus deadlines met, as a share of requests."""
    aims: dict[tuple[Driver, float, int], dict[str, float]] = {}
    for result in results:
        cell, met = result.cell, result.figures.get("attainment")
        aim = aims.setdefault((cell.driver, cell.load, cell.seed), {})
        if met is not None and cell.policy in REFERENCES and result.complete:
            aim["regret_fixed" if cell.policy == BEST_FIXED_ARM else "regret_oracle"] = met
        if (bound := result.figures.get("met_bound")) is not None:
            aim["regret_bound"] = bound / (result.figures["requests"] or 1)
    found = []
    for result in results:
        cell, met = result.cell, result.figures.get("attainment")
        aim = aims[cell.driver, cell.load, cell.seed]
        regret = {} if met is None else {name: most - met for name, most in aim.items()}
        found.append(replace(result, figures={**result.figures, **regret}) if regret else result)
    return found


Runs = Mapping[int, Mapping[str, float | None]]
"""Figures by seed."""


def _estimates(ours: Runs, theirs: Runs | None) -> dict[str, Estimate]:
    estimates = {}
    for name in FIGURES:
        values = _values(ours, name)
        if values:
            estimates[name] = _estimate(values, None if theirs is None else _values(theirs, name))
    return estimates


def _values(runs: Runs, name: str) -> dict[int, float]:
    return {seed: value for seed, figures in runs.items() if (value := figures.get(name)) is not None}


def _estimate(values: Mapping[int, float], theirs: Mapping[int, float] | None) -> Estimate:
    # Each figure has its own generator, so that its interval does not depend on the other figures.
    low, high = mean_interval(list(values.values()), np.random.default_rng(0))
    versus = None
    if theirs is not None and (shared := [seed for seed in values if seed in theirs]):
        first, second = [theirs[seed] for seed in shared], [values[seed] for seed in shared]
        versus = paired_difference(first, second, np.random.default_rng(0))
    return Estimate(values, math.fsum(values.values()) / len(values), low, high, versus)
