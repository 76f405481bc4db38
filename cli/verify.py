"""`skyshore verify`: checks the files of a run bundle and runs its cells again."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from cli.sweep_bars import SweepBars
from experiments.plan.bundle import Bundle
from experiments.run.processes import run_in_processes
from experiments.run.verify import Verification, verify


def run_verify(folder: Path, parallel: int, *, as_json: bool) -> bool:
    """Whether the bundle is intact and its cells give the same results.

    Raises:
        BadBundle: the folder is not a bundle, or the run was not finished.
    """
    bundle = Bundle.read(folder)
    bundle.sums()
    processes = parallel or len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(prefix="skyshore-verify-") as scratch,
        SweepBars(Console(stderr=True), len(bundle.jobs()), 0) as bars,
    ):
        execute = lambda jobs, place: run_in_processes(jobs, place, processes)  # noqa: E731
        verdict = verify(bundle, execute, Path(scratch), bars.show)
    if as_json:
        print(json.dumps(_plain(folder, verdict)))
    else:
        _show(verdict)
    return verdict.holds


def _plain(folder: Path, verdict: Verification) -> dict[str, object]:
    findings = [asdict(finding) for finding in verdict.findings]
    counts = {"cells": verdict.cells, "run_again": verdict.rerun}
    return {"bundle": str(folder), "holds": verdict.holds, **counts, "findings": findings}


def _show(verdict: Verification) -> None:
    console = Console(soft_wrap=True)
    for finding in verdict.findings:
        style = "yellow" if finding.harmless else "red"
        console.print(f"{finding.where}: {finding.what}", style=style, markup=False, highlight=False)
    again = f"{verdict.rerun} of {verdict.cells} cells run again"
    if verdict.holds:
        console.print(f"[bold green]The bundle holds[/]: {again}, equal to the last bit.", highlight=False)
    else:
        console.print(f"[bold red]The bundle does not hold[/] ({again}).", highlight=False)
