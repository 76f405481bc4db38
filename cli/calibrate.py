"""`skyshore calibrate`: fits node models and overheads to a live run, for simulations."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from cli.render import show_table
from experiments.fit.calibrate import calibrate_run
from skyshore.nodemodel.calibration import Calibration, calibration_to_document
from skyshore.report.tables import Table


def run_calibrate(run: Path, out: Path, *, as_json: bool) -> None:
    """Fit, write `out`, and print the result.

    Raises:
        SkyshoreError, OSError: the run cannot be used, or the file cannot be written.
    """
    found = calibrate_run(run)
    document = calibration_to_document(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(document))
        return
    console = Console()
    for table in (_llm_table(found), _video_table(found)):
        if table.rows:
            show_table(console, table)
    overheads = found.overheads
    console.print(
        f"gateway {1000 * overheads.gateway_s:.1f} ms, other hops {1000 * overheads.request_s:.1f} ms; "
        f"a node takes {found.contention:.0%} longer for every other busy node\n"
        f'{out}: to use it in simulations, put it beside a scenario and write calibration = "{out.name}" there',
        highlight=False,
        soft_wrap=True,
    )


def _llm_table(found: Calibration) -> Table:
    columns = ("node", "model", "iteration", "per prompt token", "per row", "busy", "idle", "source")
    rows = tuple(
        (
            node_id,
            speed.model,
            f"{1000 * speed.iteration_s:.2f} ms",
            f"{1000 * speed.prefill_token_s:.3f} ms",
            f"{1000 * speed.row_s:.2f} ms",
            f"{speed.busy_watts:.1f} W",
            f"{profile.idle_watts:.1f} W",
            speed.source,
        )
        for node_id, profile in found.nodes.items()
        for speed in profile.llm
    )
    return Table("language models", columns, rows)


def _video_table(found: Calibration) -> Table:
    rows = tuple(
        (node_id, speed.model, f"{1000 * speed.frame_s:.2f} ms", f"{speed.busy_watts:.1f} W", speed.source)
        for node_id, profile in found.nodes.items()
        for speed in profile.video
    )
    return Table("detectors", ("node", "model", "per frame", "busy", "source"), rows)
