"""Carries out one cell and leaves its files in a folder; what every executor calls, wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments.cell import Cell, CellResult, Driver
from experiments.curves import CurveTally
from experiments.decision_table import DecisionWriter
from experiments.engine import Engine, Progress
from experiments.outcome_table import OutcomeRow, OutcomeWriter, RowSink
from experiments.simulated import run_simulated
from skyshore.domain.placement import DecisionRecord

FORMAT = "skyshore.cell/1"
RESULT, CURVES = "result.json", "curves.json"
OUTCOMES, DECISIONS = "outcomes.parquet", "decisions.parquet"


@dataclass(frozen=True, slots=True)
class CellJob:
    """A cell to run, what to keep of it, and the marks that make its result recognisable."""

    cell: Cell
    inputs_sha256: str
    sources_sha256: str
    rows: bool = True
    """Keep a row a request."""
    decisions: bool = False
    """Keep a row a decision, with scores and features."""

    engine: Engine = Engine.AUTO
    """Of a simulated cell; the result is the same."""

    @property
    def marks(self) -> dict[str, object]:
        """Equal marks mean that a result may be used again."""
        return {
            "format": FORMAT,
            "inputs_sha256": self.inputs_sha256,
            "sources_sha256": self.sources_sha256,
            "rows": self.rows,
            "decisions": self.decisions,
        }


def perform(job: CellJob, folder: Path, progress: Progress | None = None) -> CellResult:
    """Run the cell and write its files into `folder`, the result last.

    Raises:
        SkyshoreError, OSError: the cell cannot be run.
    """
    curves = CurveTally()
    sinks: list[RowSink] = [curves]
    on_decision: Callable[[DecisionRecord], None] | None = None
    with ExitStack() as files:
        if job.rows:
            sinks.append(files.enter_context(OutcomeWriter(folder / OUTCOMES)))
        if job.decisions:
            decisions = files.enter_context(DecisionWriter(folder / DECISIONS))
            sinks.append(decisions.ended)
            on_decision = decisions.decided

        def on_row(row: OutcomeRow) -> None:
            for sink in sinks:
                sink(row)

        result = _run(job, on_row, on_decision, progress)
    _write(folder / CURVES, curves.to_json())
    _write(folder / RESULT, {**job.marks, **result.to_json()})
    return result


def _run(
    job: CellJob, on_row: RowSink, on_decision: Callable[[DecisionRecord], None] | None, progress: Progress | None
) -> CellResult:
    if job.cell.driver is Driver.SIM:
        return run_simulated(job.cell, on_row=on_row, on_decision=on_decision, progress=progress, engine=job.engine)
    from experiments.live import run_live  # noqa: PLC0415 (needs what the live system needs; a simulation does not)

    return run_live(job.cell, on_row=on_row, on_decision=on_decision, progress=progress)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
