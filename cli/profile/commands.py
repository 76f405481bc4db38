"""The commands of `skyshore profile`."""

from __future__ import annotations

import typer

from cli.profile.llm import llm
from cli.profile.video import video

app = typer.Typer(help="Measure the arms of this machine.", no_args_is_help=True, add_completion=False)
app.command("llm")(llm)
app.command("video")(video)
