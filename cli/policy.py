"""`skyshore policy`: shows and changes the active policy."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from cli.connection import GatewayApi, gateway_url
from cli.options import AsJson, Url
from cli.render import say

app = typer.Typer(help="The policy that places tasks: show, set.", no_args_is_help=True, add_completion=False)


@app.command()
def show(url: Url = "", as_json: AsJson = False) -> None:
    """Show the active policy and all other policies."""
    answer = GatewayApi(gateway_url(url)).get("/v1/policy")
    if as_json:
        print(json.dumps(answer))
        return
    for name in answer["available"]:
        say(Console(), (f"* {name}", "bold green") if name == answer["policy"] else f"  {name}")


@app.command("set")
def set_policy(
    name: Annotated[str, typer.Argument(help="Name from `skyshore policy show`.")],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Change the active policy; no task is lost."""
    answer = GatewayApi(gateway_url(url)).put("/v1/policy", {"policy": name})
    if as_json:
        print(json.dumps(answer))
    else:
        say(Console(), f"{answer['policy']} places tasks from now on")
