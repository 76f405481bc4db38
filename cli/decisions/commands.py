"""`skyshore decisions` and `explain`: the arm that a policy chose, the other arms, and its probability."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.connection import GatewayApi, gateway_url, local_redis_url
from cli.options import AsJson, Url
from cli.render import show_table
from skyshore.domain.errors import NotFound
from skyshore.report.tables import Table

app = typer.Typer(help="The decision log: newest decisions, export.", add_completion=False)

NEWEST = 1000
"""The gateway returns no more."""
SHOWN_ID = 12
"""Characters of a task id in a table; `explain` accepts the first characters of an id."""


@app.callback(invoke_without_command=True)
def newest(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of decisions.")] = 20,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show the newest decisions."""
    if context.invoked_subcommand is None:
        show_decisions(GatewayApi(gateway_url(url)), count, as_json=as_json)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    redis_url: Annotated[
        str, typer.Option(help="State store of the system (default: of the system that runs here).")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write all decisions with context and outcome, for `skyshore evaluate`."""
    from cli.decisions.export import run_export  # noqa: PLC0415 (pyarrow is slow to import)

    run_export(redis_url or local_redis_url(), out, as_json=as_json)


def show_decisions(api: GatewayApi, count: int, *, as_json: bool) -> None:
    """Print the newest decisions, newest first."""
    decisions = api.get(f"/v1/decisions?limit={count}")["decisions"]
    if as_json:
        print(json.dumps(decisions))
        return
    rows = tuple(
        (
            decision["task_id"][:SHOWN_ID],
            _clock(decision["decided_at_s"]),
            decision["policy"],
            decision["service_class"],
            f"{decision['propensity']:.2f} of {len(decision['arm_ids'])}",
            decision["chosen"] or "rejected",
        )
        for decision in decisions
    )
    columns = ("task", "at", "policy", "class", "propensity", "arm")
    note = "propensity: probability of the chosen arm, and number of arms"
    show_table(Console(), Table(f"{len(rows)} decisions, newest first", columns, rows, note, wide_last=True))


def explain(api: GatewayApi, task_id: str, *, as_json: bool) -> None:
    """Print how one task was placed: every arm with its score, and the chosen arm.

    Raises:
        NotFound: the task is not among the newest decisions.
    """
    decisions = api.get(f"/v1/decisions?limit={NEWEST}")["decisions"]
    # The task id of a segment starts with the id of its job.
    own = [each for each in decisions if each["task_id"].startswith(task_id)]
    if not own:
        raise NotFound(f"no decision for task '{task_id}' among the newest {len(decisions)}; see `skyshore decisions`")
    if as_json:
        print(json.dumps(own))
        return
    for decision in reversed(own):
        show_table(Console(), _explanation(decision))


def _explanation(decision: dict[str, Any]) -> Table:
    scores = decision["scores"] or [float("nan")] * len(decision["arm_ids"])
    ranked = sorted(zip(scores, decision["arm_ids"], strict=True), reverse=True)
    rows = tuple((arm, f"{score:.4g}", "chosen" if arm == decision["chosen"] else "") for score, arm in ranked)
    features = ", ".join(f"{value:.4g}" for value in decision["features"])
    title = f"{decision['task_id']} at {_clock(decision['decided_at_s'])} by {decision['policy']}"
    verdict = decision["chosen"] or "rejected: no arm could run it"
    note = f"{verdict}, chosen with probability {decision['propensity']:.2f}; features: {features or 'none'}"
    return Table(title, ("arm", "score", ""), rows, note)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{seconds % 1 * 1e3:03.0f}"
