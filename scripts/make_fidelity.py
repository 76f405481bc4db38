"""Measures how far simulation lies from live runs and writes docs/fidelity.md.

One live run, with other requests than those judged, teaches the overheads (and real nodes); then every load is
simulated several times and run live several times. What was run is kept: `--resume` goes on after an interruption.
`--render` writes the page from the figures that are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.render import show_table
from experiments.figures.outcome_table import OutcomeWriter, read_records
from experiments.fit.calibrate import calibrate
from experiments.plan.cell import Cell, CellResult, Driver
from experiments.plan.inputs import Inputs
from experiments.report.fidelity import JUDGED, fidelity
from experiments.report.tables import figure_text
from experiments.run.live import run_live
from experiments.run.simulated import run_simulated
from skyshore.nodemodel.calibration import calibration_to_document
from skyshore.report.host import host_facts
from skyshore.report.load_audit import Verdict
from skyshore.scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent
PAGE, INTRODUCTION = ROOT / "docs/fidelity.md", ROOT / "scripts/fidelity_intro.md"
FIGURES = ROOT / "docs/benchmarks/fidelity.json"
RUNS = ROOT / ".state/fidelity"
"""What `--resume` finds: a folder a study, two files a live run."""
EMULATED, REAL = ROOT / "scenarios/fidelity.toml", ROOT / "scenarios/fidelity-ort.toml"
TOLERANCE = {EMULATED: 0.05, REAL: 0.10}
OTHER_SEED = 1000
DRAWS = 10
"""Simulations of the same requests that differ in chance alone (ties, jitter, overheads); their mean is the
prediction."""
TEACHERS = 3
START_S = 15.0
"""To bring a system up and down, about; for the estimate of what is left."""


@dataclass
class FidelityProgress:
    """Says what is done and how long the rest may take."""

    console: Console
    ahead_s: float
    """Of all live runs to come."""
    began_s: float = field(default_factory=time.monotonic)

    def done(self, words: str, took_s: float) -> None:
        """One live run is over."""
        self.ahead_s = max(0.0, self.ahead_s - took_s)
        spent_min = (time.monotonic() - self.began_s) / 60
        self.console.print(
            f"[{spent_min:.0f} min, about {self.ahead_s / 60:.0f} to go] {words}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@dataclass(frozen=True)
class Study:
    """A scenario at several loads, each with a number of live runs."""

    scenario: Path
    loads: dict[float, int]

    @property
    def live_s(self) -> float:
        """About how long its live runs take."""
        duration_s = Inputs.read(self.scenario).parse().duration_s
        return (1 + sum(self.loads.values())) * (duration_s + START_S)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", default="0.3,0.6,0.9")
    parser.add_argument("--real-loads", default="0.3,0.6,1.5", help="of the real nodes; empty leaves them out")
    parser.add_argument("--repeats", type=int, default=3, help="live runs a load; one beyond load 1")
    parser.add_argument("--resume", action="store_true", help=f"keep the live runs in {RUNS}")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if not options.render:
        _measure(options)
    PAGE.write_text(_page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def _measure(options: argparse.Namespace) -> None:
    """Writes the figures, after every study."""
    if not options.resume:
        shutil.rmtree(RUNS, ignore_errors=True)
    studies = [Study(EMULATED, _loads(options.loads, options.repeats))]
    if options.real_loads:
        studies.append(Study(REAL, _loads(options.real_loads, options.repeats)))
    progress = FidelityProgress(Console(stderr=True), sum(study.live_s for study in studies))
    judged: list[dict[str, Any]] = []
    for study in studies:
        judged.append(_study(study, progress))
        content = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "host": host_facts(), "studies": judged}
        FIGURES.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _loads(text: str, repeats: int) -> dict[float, int]:
    return {load: repeats if load <= 1 else 1 for load in map(float, text.split(","))}


def _study(study: Study, progress: FidelityProgress) -> dict[str, Any]:
    inputs = Inputs.read(study.scenario)
    read = inputs.parse()
    folder = RUNS / f"{read.name}-{inputs.sha256[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = inputs.write(folder)
    loads = list(study.loads)
    teacher = Cell(path, read.policy, read.seed + OTHER_SEED, loads[len(loads) // 2], Driver.LIVE)
    taught = _taught(teacher, folder, progress)
    document = _calibrated(taught, read, path, teacher.load)
    fitted = path.with_name("fitted.toml")
    fitted.write_text(f'calibration = "fitted.json"\n{inputs.text}', encoding="utf-8")
    results = [
        run_simulated(Cell(fitted, read.policy, read.seed, load), chance=draw)
        for load in loads
        for draw in range(DRAWS)
    ]
    for turn in range(max(study.loads.values())):
        for load in (each for each in loads if turn < study.loads[each]):
            cell = Cell(path, read.policy, read.seed, load, Driver.LIVE)
            results.append(_live(cell, folder / f"load{load:g}-run{turn + 1}", progress))
    found = fidelity(results)
    for each in found:
        show_table(progress.console, each.table(TOLERANCE[study.scenario]))
    return {
        "scenario": study.scenario.relative_to(ROOT).as_posix(),
        "inputs_sha256": inputs.sha256,
        "tolerance": TOLERANCE[study.scenario],
        "calibration": document,
        "judged": [each.to_json() for each in found],
    }


def _taught(teacher: Cell, folder: Path, progress: FidelityProgress) -> Path:
    """Requests of a run that kept its schedule: one that did not teaches the client's lateness as an overhead.

    Raises:
        RuntimeError: none did.
    """
    for attempt in range(TEACHERS):
        result = _live(teacher, folder / f"teacher{attempt + 1}", progress)
        if not any(note.startswith(Verdict.INVALID) for note in result.notes):
            return folder / f"teacher{attempt + 1}.parquet"
    raise RuntimeError(f"{TEACHERS} runs to learn from did not keep their schedule; try again on a quieter machine")


def _calibrated(rows: Path, scenario: Scenario, path: Path, load: float) -> dict[str, Any]:
    """Fits, and leaves `fitted.json` beside the scenario."""
    found = calibrate(read_records(rows), scenario, path.parent, f"measured: {scenario.name} at load {load:g}")
    document = calibration_to_document(found)
    (path.parent / "fitted.json").write_text(json.dumps(document), encoding="utf-8")
    return document


def _live(cell: Cell, stem: Path, progress: FidelityProgress) -> CellResult:
    """Run, or take what an earlier run left: `STEM.parquet` with its requests, then `STEM.json`."""
    kept = stem.with_name(f"{stem.name}.json")
    began_s = time.monotonic()
    if kept.is_file():
        result = CellResult.from_json(cell, json.loads(kept.read_text(encoding="utf-8")))
    else:
        with OutcomeWriter(stem.with_name(f"{stem.name}.parquet")) as writer:
            result = run_live(cell, on_record=writer)
        kept.write_text(json.dumps(result.to_json(), allow_nan=False), encoding="utf-8")
    took = "kept" if kept.is_file() and time.monotonic() - began_s < 1 else f"{time.monotonic() - began_s:.0f} s"
    words = f"{stem.parent.name} {stem.name} at load {cell.load:g} ({took}): {'; '.join(result.notes)}"
    progress.done(words, result.duration_s + START_S)
    return result


def _page(content: dict[str, Any]) -> str:
    parts = [INTRODUCTION.read_text(encoding="utf-8").rstrip()]
    host = content["host"]
    where = f"{host['cpu']}, {host['cores']} cores, load average {host['load_average_1m']} at the end"
    parts.append(f"## Figures\n\nMeasured {content['at']} on {where}.")
    for study in content["studies"]:
        overheads = study["calibration"]["overheads"]
        gateway_ms, other_ms = 1000 * overheads["gateway_s"], 1000 * overheads["request_s"]
        learned = (
            f"Learned from one run: {gateway_ms:.1f} ms in the gateway, {other_ms:.1f} ms in other hops (medians)."
        )
        learned += _engines(study["calibration"])
        parts.append(f"### `{study['scenario']}`\n\n{learned}")
        parts += [_section(each, study["tolerance"]) for each in study["judged"]]
    return "\n\n".join(parts) + "\n"


def _engines(calibration: dict[str, Any]) -> str:
    speeds = [(node_id, speed) for node_id, profile in calibration["nodes"].items() for speed in profile["llm"]]
    said = "".join(
        f" `{node_id}`: {1000 * speed['iteration_s']:.1f} ms an iteration, {1000 * speed['prefill_token_s']:.2f} ms a "
        f"prompt token, {1000 * speed['row_s']:.1f} ms a row, padded to {speed.get('row_multiple', 1)}."
        for node_id, speed in speeds
    )
    if len(speeds) > 1:
        said += f" Either takes {calibration.get('contention', 0.0):.0%} longer while the other one is busy."
    return said


def _section(judged: dict[str, Any], tolerance: float) -> str:
    left_out = f", {judged['left_out']} more left out as invalid" if judged["left_out"] else ""
    title = f"**Load {judged['load']:g}**, {judged['policy']}, {judged['runs']} {judged['provenance']} runs{left_out}"
    heading = f"| | simulated | live mean | error | live spread | within {tolerance:.0%} or spread |"
    lines = [heading, "|---" * 6 + "|"]
    for error in judged["errors"]:
        name, spread = error["name"], error["spread"]
        bound = max(tolerance, spread or 0.0)
        lines.append(
            f"| {JUDGED[name]} | {figure_text(name, error['predicted'])} | {figure_text(name, error['live'])} "
            f"| {error['error']:+.1%} | {'–' if spread is None else f'±{spread:.1%}'} "
            f"| {'yes' if abs(error['error']) <= bound else '**no**'} |"
        )
    notes = "".join(f"\n- {note}" for note in judged["notes"])
    return f"{title}\n\n" + "\n".join(lines) + f"\n\nThe runs said of themselves:\n{notes}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
