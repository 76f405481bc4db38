"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str, typer.Option(help="URL of the gateway (default: SKYSHORE_URL, or the system that runs here).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Emulated = Annotated[bool, typer.Option(help="Emulate the nodes: needs no models; answers are not real.")]
ScenarioFile = Annotated[Path, typer.Argument(help="Scenario file (TOML).", metavar="SCENARIO")]
