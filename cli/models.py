"""`skyshore models`: lists, fetches, verifies and builds models and sample clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from cli.options import AsJson
from cli.render import say, show_table
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import add_own, add_precision, cache_dir, fetch, ready, verify
from skyshore.catalogue.table import ENTRIES, entry
from skyshore.domain.errors import SkyshoreError
from skyshore.report.tables import Table

app = typer.Typer(
    help="Models and sample clips: list, fetch, verify, build.", no_args_is_help=True, add_completion=False
)

DEFAULT_SET = ("ssd-mobilenet", "nanodet", "smollm2-135m", "bikes")
"""The models and the clip of the demo and the tests."""

Names = Annotated[list[str] | None, typer.Argument(help="Names from `skyshore models list`.")]


class _StatusLine:
    """Shows the stage while one entry is fetched."""

    def __init__(self, status: Status, name: str) -> None:
        self._status = status
        self._name = name

    def __call__(self, stage: str) -> None:
        self._status.update(f"{self._name}: {stage}")


@app.command("list")
def list_entries(as_json: AsJson = False) -> None:
    """Show all entries, their licences, and which are in the cache."""
    cached = {name: is_ready(name) for name in ENTRIES}
    if as_json:
        fields = ("name", "kind", "about", "licence", "opt_in", "download_mb")
        entries = [
            {key: getattr(item, key) for key in fields} | {"cached": cached[item.name]} for item in ENTRIES.values()
        ]
        print(json.dumps({"cache": str(cache_dir()), "entries": entries}))
        return
    rows = tuple(
        (
            item.name,
            item.kind.value,
            "yes" if cached[item.name] else f"no ({item.download_mb} MB)",
            f"{item.licence} (opt-in)" if item.opt_in else item.licence,
            item.about,
        )
        for item in ENTRIES.values()
    )
    columns = ("name", "kind", "cached", "licence", "description")
    show_table(Console(), Table("", columns, rows, f"cache: {cache_dir()}", wide_last=True))


@app.command("fetch")
def fetch_entries(
    names: Names = None,
    accept_licence: Annotated[bool, typer.Option(help="Accept the licence of an opt-in entry.")] = False,
) -> None:
    """Fetch, verify and convert entries (default: those of the demo)."""
    console = Console(stderr=True)
    failed = False
    for name in names or DEFAULT_SET:
        try:
            with console.status(name) as status:
                progress = _StatusLine(status, name)
                folder = fetch(name, accept_licence=accept_licence, progress=progress)
            say(console, (name, "green"), f" {folder} ({entry(name).licence})")
        except SkyshoreError as error:
            failed = True
            say(console, (name, "red"), f": {error.message}")
    if failed:
        raise typer.Exit(1)


@app.command("verify")
def verify_entries(names: Names = None) -> None:
    """Check the hash of every file (default: of everything in the cache)."""
    console = Console(stderr=True)
    present = names or [name for name in ENTRIES if (cache_dir() / name).is_dir()]
    failed = False
    for name in present:
        try:
            manifest = verify(name)
            count = len(manifest.files) + len(manifest.source_files)
            say(console, (name, "green"), f" {count} files verified")
        except SkyshoreError as error:
            failed = True
            say(console, (name, "red"), f": {error.message}")
    if failed:
        raise typer.Exit(1)


@app.command("build")
def build_model(
    name: Annotated[str, typer.Argument(help="A fetched language model, or your own GGUF file.")],
    precision: Annotated[str, typer.Option(help="Precision: fp32, fp16, int8, w8a8, q4x or int4.")] = "int4",
) -> None:
    """Add one precision of a language model to the cache. A GGUF file becomes a model with the name of the file."""
    console = Console(stderr=True)
    try:
        with console.status(name) as status:
            if name.endswith(".gguf"):
                path = add_own(Path(name), precision)
                name = path.parent.name
            else:
                path = add_precision(name, precision, progress=_StatusLine(status, name))
        say(console, (name, "green"), f" {path}")
    except SkyshoreError as error:
        say(console, (name, "red"), f": {error.message}")
        raise typer.Exit(1) from error


def is_ready(name: str) -> bool:
    """Whether a model or clip is in the cache."""
    try:
        ready(name)
    except NotFetched:
        return False
    return True
