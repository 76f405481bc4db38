"""Measures how far simulation lies from live runs and writes docs/fidelity.md.

One live run, with other requests than those judged, teaches the overheads (and real nodes); then every load is
simulated once and run live several times. `--render` writes the page from the figures that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.render import show_table
from experiments.calibrate import calibrate
from experiments.cell import Cell, CellResult, Driver
from experiments.fidelity import JUDGED, fidelity
from experiments.inputs import Inputs
from experiments.live import run_live
from experiments.outcome_table import OutcomeRow
from experiments.simulated import run_simulated
from experiments.tables import figure_text
from skyshore.nodemodel.calibration import calibration_to_document
from skyshore.report.host import host_facts

ROOT = Path(__file__).resolve().parent.parent
PAGE, INTRODUCTION = ROOT / "docs/fidelity.md", ROOT / "scripts/fidelity_intro.md"
FIGURES = ROOT / "docs/benchmarks/fidelity.json"
EMULATED, REAL = ROOT / "scenarios/fidelity.toml", ROOT / "scenarios/fidelity-ort.toml"
TOLERANCE = {EMULATED: 0.05, REAL: 0.10}
OTHER_SEED = 1000
DRAWS = 10
"""Simulations of the same requests that differ in chance alone (ties, jitter); their mean is the prediction."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", default="0.3,0.6,0.9")
    parser.add_argument("--real-loads", default="0.3,0.6,1.5", help="of the real nodes; empty leaves them out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if not options.render:
        studies = [_study(EMULATED, _loads(options.loads), options.repeats)]
        if options.real_loads:
            studies.append(_study(REAL, _loads(options.real_loads), options.repeats))
        content = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "host": host_facts(), "studies": studies}
        FIGURES.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    PAGE.write_text(_page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def _loads(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def _study(scenario: Path, loads: Sequence[float], repeats: int) -> dict[str, Any]:
    console, inputs = Console(stderr=True), Inputs.read(scenario)
    read = inputs.parse()
    with tempfile.TemporaryDirectory(prefix="skyshore-fidelity-") as folder:
        path = inputs.write(Path(folder))
        rows: list[OutcomeRow] = []
        teacher = Cell(path, read.policy, read.seed + OTHER_SEED, loads[len(loads) // 2], Driver.LIVE)
        notes = run_live(teacher, on_row=rows.append).notes
        console.print(f"{read.name}: calibrated at load {teacher.load:g}; {'; '.join(notes)}", highlight=False)
        found = calibrate(rows, read, path.parent, f"measured: {read.name} at load {teacher.load:g}")
        document = calibration_to_document(found)
        (path.parent / "fitted.json").write_text(json.dumps(document), encoding="utf-8")
        fitted = path.with_name("fitted.toml")
        fitted.write_text(f'calibration = "fitted.json"\n{inputs.text}', encoding="utf-8")
        foreseen = [Cell(fitted, read.policy, read.seed, load) for load in loads]
        results = [run_simulated(cell, chance=draw) for cell in foreseen for draw in range(DRAWS)]
        for turn in range(repeats):
            for load in loads:
                results.append(_live(Cell(path, read.policy, read.seed, load, Driver.LIVE), turn, console))
    judged = fidelity(results)
    for each in judged:
        show_table(console, each.table(TOLERANCE[scenario]))
    return {
        "scenario": scenario.relative_to(ROOT).as_posix(),
        "inputs_sha256": inputs.sha256,
        "tolerance": TOLERANCE[scenario],
        "calibration": document,
        "judged": [each.to_json() for each in judged],
    }


def _live(cell: Cell, turn: int, console: Console) -> CellResult:
    result = run_live(cell)
    console.print(f"load {cell.load:g}, run {turn + 1}: {'; '.join(result.notes)}", highlight=False)
    return result


def _page(content: dict[str, Any]) -> str:
    parts = [INTRODUCTION.read_text(encoding="utf-8").rstrip()]
    host = content["host"]
    where = f"{host['cpu']}, {host['cores']} cores, load average {host['load_average_1m']} at the end"
    parts.append(f"## Figures\n\nMeasured {content['at']} on {where}.")
    for study in content["studies"]:
        overheads = study["calibration"]["overheads"]
        gateway_ms, other_ms = 1000 * overheads["gateway_s"], 1000 * overheads["request_s"]
        learned = f"Learned from one run: {gateway_ms:.1f} ms in the gateway, {other_ms:.1f} ms in other hops."
        parts.append(f"### `{study['scenario']}`\n\n{learned}")
        parts += [_section(each, study["tolerance"]) for each in study["judged"]]
    return "\n\n".join(parts) + "\n"


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
