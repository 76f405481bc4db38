"""`skyshore traces`: makes, shows and checks schedule files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from cli.options import AsJson
from cli.render import say, show_table
from cli.traces.sources import LLM_SOURCES, camera_stream, llm_stream
from skyshore.report.request_record import in_json
from skyshore.report.tables import NONE, Table
from skyshore.scenario.files import read_schedule
from skyshore.workload.arrival import Arrival
from skyshore.workload.load_statistics import load_statistics
from skyshore.workload.schedule import Schedule, assemble, to_lines

_LLM_HELP = (
    f"A source of LLM requests: {', '.join(LLM_SOURCES)}, then name=value options, for example "
    "'poisson rate=0.5 prompt_tokens=64 output_tokens=32 deadline_s=20' or 'azure file=trace.csv speed_up=2'. "
    "Repeat for several."
)
_CAMERA_HELP = (
    "Cameras: name=value options, for example 'count=2 fps=5 segment_s=2 clip=bikes deadline_s=10'. Repeat for several."
)

app = typer.Typer(help="Schedules of requests: make, show, check.", no_args_is_help=True, add_completion=False)


File = Annotated[Path, typer.Argument(help="A schedule file (JSON lines).", metavar="FILE")]


def write_schedule(schedule: Schedule, path: Path) -> None:
    """Write a schedule file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(to_lines(schedule))


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Schedule file to write.", metavar="FILE")],
    *,
    seconds: Annotated[float, typer.Option(help="Length of the schedule in seconds.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    llm: Annotated[list[str] | None, typer.Option(help=_LLM_HELP, metavar="TEXT")] = None,
    cameras: Annotated[list[str] | None, typer.Option(help=_CAMERA_HELP, metavar="TEXT")] = None,
) -> None:
    """Make a schedule of LLM requests (from arrival processes or published traces) and cameras."""
    if not 0 < seconds < math.inf:
        raise typer.BadParameter(f"the length must be above 0 and finite, not {seconds:g} s", param_hint="--seconds")
    streams = [llm_stream(words, seconds, seed, number) for number, words in enumerate(llm or (), start=1)]
    streams += [camera_stream(words, seconds, seed, number) for number, words in enumerate(cameras or (), start=1)]
    if not streams:
        raise typer.BadParameter("give --llm, --cameras or both")
    provenance = [line for stream in streams for line in stream.provenance]
    schedule = assemble([stream.arrivals for stream in streams], duration_s=seconds, seed=seed, provenance=provenance)
    write_schedule(schedule, out)
    say(Console(), f"{out}: {len(schedule.arrivals)} requests in {seconds:g} s, sha256 {schedule.sha256[:12]}…")


@app.command()
def show(file: File, as_json: AsJson = False) -> None:
    """Show how a schedule was made, and the statistics of its load."""
    schedule = read_schedule(file)
    described = {kind: _describe(group, schedule.duration_s) for kind, group in _by_kind(schedule)}
    if as_json:
        head = {"sha256": schedule.sha256, "seed": schedule.seed, "duration_s": schedule.duration_s}
        print(json.dumps({**head, "provenance": schedule.provenance, "kinds": described}))
        return
    console = Console()
    about = f"  seed {schedule.seed}  {schedule.duration_s:g} s  sha256 {schedule.sha256[:16]}…"
    say(console, (str(file), "bold"), about)
    for line in schedule.provenance:
        say(console, f"  {line}")
    columns = ("kind", "requests", "rate /s", "gap CV", "IDC 1 s", "prompt mean", "output mean", "frames mean")
    rows = tuple((kind, *(_cell(value) for value in figures.values())) for kind, figures in described.items())
    show_table(console, Table("", columns, rows))


@app.command()
def check(file: File) -> None:
    """Check format, order and hash of a schedule; exit with 1 and the wrong line on an error."""
    schedule = read_schedule(file)
    say(Console(), (f"{file} is valid", "green"), f": {len(schedule.arrivals)} requests, sha256 {schedule.sha256}")


def _by_kind(schedule: Schedule) -> Iterator[tuple[str, list[Arrival]]]:
    yield "all", list(schedule.arrivals)
    for kind in sorted({arrival.kind for arrival in schedule.arrivals}):
        yield kind, [arrival for arrival in schedule.arrivals if arrival.kind is kind]


def _describe(group: list[Arrival], duration_s: float) -> dict[str, float | str | None]:
    load = load_statistics([arrival.t_intended_s for arrival in group], duration_s)
    figures = {key: asdict(load)[key] for key in ("count", "rate_per_s", "gap_cv", "idc_1s")}
    for name in ("prompt_tokens", "output_tokens", "frames"):
        values = [value for arrival in group if (value := getattr(arrival, name))]
        figures[f"mean_{name}"] = float(np.mean(values)) if values else None
    return {key: in_json(value) for key, value in figures.items()}


def _cell(value: float | str | None) -> str:
    return NONE if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
