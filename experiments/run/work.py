"""Runs one cell and writes its files into a folder; every executor calls this."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from experiments.figures.curves import CurveTally
from experiments.figures.decision_table import DecisionWriter
from experiments.figures.outcome_table import OutcomeWriter, RecordSink
from experiments.plan.cell import CellResult, Driver
from experiments.plan.job import CURVES, DECISIONS, OUTCOMES, RESULT, CellJob
from experiments.run.engine import Progress
from experiments.run.simulated import run_simulated
from skyshore.domain.placement import DecisionRecord
from skyshore.report.request_record import RequestRecord


def perform(job: CellJob, folder: Path, progress: Progress | None = None) -> CellResult:
    """Run the cell and write its files into `folder`, the result last.

    Raises:
        SkyshoreError, OSError: the cell cannot be run.
    """
    curves = CurveTally()
    sinks: list[RecordSink] = [curves]
    on_decision: Callable[[DecisionRecord], None] | None = None
    with ExitStack() as files:
        if job.rows:
            sinks.append(files.enter_context(OutcomeWriter(folder / OUTCOMES)))
        if job.decisions:
            decisions = files.enter_context(DecisionWriter(folder / DECISIONS))
            sinks.append(decisions.ended)
            on_decision = decisions.decided

        def on_record(record: RequestRecord) -> None:
            for sink in sinks:
                sink(record)

        result = _run(job, on_record, on_decision, progress)
    _write(folder / CURVES, curves.to_json())
    _write(folder / RESULT, {**job.marks, **result.to_json()})
    return result


def _run(
    job: CellJob, on_record: RecordSink, on_decision: Callable[[DecisionRecord], None] | None, progress: Progress | None
) -> CellResult:
    if job.cell.driver is Driver.SIM:
        return run_simulated(
            job.cell, on_record=on_record, on_decision=on_decision, progress=progress, engine=job.engine
        )
    from experiments.run.live import run_live  # noqa: PLC0415 (needs what the live system needs; a simulation does not)

    return run_live(job.cell, on_record=on_record, on_decision=on_decision, progress=progress)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
