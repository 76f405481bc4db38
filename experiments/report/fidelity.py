"""How far a prediction is from live runs, beside how far live runs are from one another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from experiments.plan.cell import CellResult, Driver
from experiments.report.tables import figure_text
from skyshore.report.load_audit import Verdict
from skyshore.report.request_record import in_json
from skyshore.report.tables import Table

JUDGED = {
    "ttft_p50_s": "TTFT p50",
    "ttft_p95_s": "TTFT p95",
    "tpot_p50_s": "TPOT p50",
    "latency_p50_s": "end to end p50",
    "latency_p95_s": "end to end p95",
    "latency_p99_s": "end to end p99",
    "attainment": "deadlines met",
    "link_bytes": "bytes on links",
    "joules": "joules",
    "fleet_joules": "joules of the fleet",
    "edge_share": "edge share",
}
"""Figures whose error is printed."""


@dataclass(frozen=True, slots=True)
class FigureError:
    """One figure: predicted, live, and both distances as shares of the live mean."""

    name: str
    predicted: float
    live: float
    """Mean over the live runs."""
    error: float
    """(predicted - live) / live."""
    spread: float
    """Largest distance of one live run from the live mean, over the mean; not a number for a single run."""

    def within(self, tolerance: float) -> bool:
        """Whether the error is within the tolerance, or within the difference between live runs."""
        return abs(self.error) <= max(tolerance, self.spread if math.isfinite(self.spread) else 0.0)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One policy at one load: the prediction against the live runs that count."""

    policy: str
    load: float
    provenance: str
    runs: int
    """Live runs that kept their schedule."""
    left_out: int
    """Live runs that did not."""
    notes: tuple[str, ...]
    errors: tuple[FigureError, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        errors = [{name: in_json(value) for name, value in asdict(each).items()} for each in self.errors]
        return {**asdict(self), "notes": list(self.notes), "errors": errors}

    def table(self, tolerance: float) -> Table:
        """One row per figure."""
        rows = tuple(
            (
                JUDGED[each.name],
                figure_text(each.name, each.predicted),
                figure_text(each.name, each.live),
                f"{each.error:+.1%}",
                "–" if math.isnan(each.spread) else f"±{each.spread:.1%}",
                "yes" if each.within(tolerance) else "NO",
            )
            for each in self.errors
        )
        left_out = f", {self.left_out} left out as invalid" if self.left_out else ""
        title = f"{self.policy} at load {self.load:g}: {self.runs} {self.provenance} runs{left_out}"
        columns = ("", "simulated", "live mean", "error", "live spread", f"within {tolerance:.0%} or spread")
        return Table(title, columns, rows)


def fidelity(results: Iterable[CellResult]) -> list[Fidelity]:
    """Pair simulated with live cells of equal policy and load; live runs marked invalid are left out.

    A pair has one seed. Over several seeds, errors and figures are of the means.
    """
    cells: defaultdict[tuple[str, float], list[CellResult]] = defaultdict(list)
    for result in results:
        cells[result.cell.policy, result.cell.load].append(result)
    found = (_judged(policy, load, some) for (policy, load), some in sorted(cells.items()))
    return [each for each in found if each is not None]


def _judged(policy: str, load: float, results: Sequence[CellResult]) -> Fidelity | None:
    live = [each for each in results if each.cell.driver is Driver.LIVE]
    kept = [each for each in live if each.complete and not any(note.startswith(Verdict.INVALID) for note in each.notes)]
    seeds = {each.cell.seed for each in kept}
    simulated = [each for each in results if each.cell.driver is Driver.SIM and each.cell.seed in seeds]
    if not kept or not simulated:
        return None
    return Fidelity(
        policy=policy,
        load=load,
        provenance=", ".join(sorted({each.provenance for each in kept})),
        runs=len(kept),
        left_out=len(live) - len(kept),
        notes=tuple(note for each in live for note in each.notes),
        errors=tuple(error for name in JUDGED if (error := _error(name, simulated, kept)) is not None),
    )


def _error(name: str, simulated: Sequence[CellResult], live: Sequence[CellResult]) -> FigureError | None:
    predicted = _by_seed(name, simulated)
    lived = _by_seed(name, live)
    shared = sorted(predicted.keys() & lived.keys())
    if not shared:
        return None
    means = {seed: sum(lived[seed]) / len(lived[seed]) for seed in shared}
    mean = sum(means.values()) / len(shared)
    expected = sum(sum(predicted[seed]) / len(predicted[seed]) for seed in shared) / len(shared)
    if not mean or not math.isfinite(mean):
        return None
    # Within a seed: runs of different seeds had different requests and are no repeats of one another.
    apart = [abs(value - means[seed]) / mean for seed in shared if len(lived[seed]) > 1 for value in lived[seed]]
    return FigureError(name, expected, mean, expected / mean - 1, max(apart, default=math.nan))


def _by_seed(name: str, results: Sequence[CellResult]) -> dict[int, list[float]]:
    values: defaultdict[int, list[float]] = defaultdict(list)
    for result in results:
        value = result.figures.get(name)
        if value is not None and math.isfinite(value):
            values[result.cell.seed].append(value)
    return values
