"""`skyshore policy`: which policy decides, and putting another in force."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from cli.connection import GatewayApi, gateway_url

app = typer.Typer(help="The policy that places tasks: show, set.", no_args_is_help=True)
Url = Annotated[str, typer.Option(help="Gateway; by default the one that runs here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(url: Url = "", as_json: AsJson = False) -> None:
    """Show the policy in force and those that could be."""
    _print(GatewayApi(gateway_url(url)).get("/v1/policy"), as_json)


@app.command("set")
def set_policy(
    name: Annotated[str, typer.Argument(help="A name from `policy show`.")], url: Url = "", as_json: AsJson = False
) -> None:
    """Put another policy in force; no task is lost."""
    _print(GatewayApi(gateway_url(url)).put("/v1/policy", {"policy": name}), as_json)


def _print(answer: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer))
        return
    available = answer["available"] if isinstance(answer["available"], list) else []
    for name in available:
        Console().print(f"[bold green]* {name}" if name == answer["policy"] else f"  {name}", highlight=False)
