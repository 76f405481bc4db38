"""The commands that start, stop, show and use a running system. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Emulated, Url
from skyshore.domain.errors import SkyshoreError

Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Port of the gateway. The command fails if the port is in use.")
]
Policy = Annotated[str, typer.Option(help="Policy at the start; see `skyshore policy show`.")]
READY_S = 180.0


def up(
    scenario: Annotated[
        Path | None,
        typer.Argument(help="Scenario file with nodes, links, classes, policy and seed (default: three nodes)."),
    ] = None,
    *,
    detach: Annotated[bool, typer.Option(help="Return when the system is ready; it keeps running.")] = False,
    emulated: Emulated = False,
    fetch: Annotated[bool, typer.Option(help="Fetch missing models first.")] = False,
    port: Port = None,
    any_ports: Annotated[bool, typer.Option("--any-ports", help="Take any free ports, not the usual ones.")] = False,
    policy: Policy = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Policy seed (default: from the scenario).")] = None,
    log_level: Annotated[str, typer.Option(help="Log level: debug, info, warning or error.")] = "info",
    restart: Annotated[bool, typer.Option(help="Restart processes that end by themselves.")] = True,
) -> None:
    """Start all processes and keep running; Ctrl-C stops them in order."""
    from cli.up import UpOptions, up_detached, up_foreground  # noqa: PLC0415

    options = UpOptions(scenario, emulated, fetch, port, any_ports, policy, seed, log_level, restart)
    if detach:
        up_detached(options, READY_S)
    else:
        up_foreground(options)


def down() -> None:
    """Stop the system that runs here, or remove the remains of one."""
    from rich.console import Console  # noqa: PLC0415

    from cli.connection import state_folder  # noqa: PLC0415
    from cli.launcher.control import stop_system  # noqa: PLC0415

    stopped = stop_system(state_folder(), Console(stderr=True))
    Console(stderr=True).print("stopped" if stopped else f"nothing runs in {state_folder()}", highlight=False)


def restart(
    name: Annotated[str, typer.Argument(help="Process: gateway, scheduler, profiler, links, valkey or a node.")],
) -> None:
    """Stop one process of the running system and start it; return when it serves."""
    from rich.console import Console  # noqa: PLC0415

    from cli.connection import state_folder  # noqa: PLC0415
    from cli.launcher.control import restart_process  # noqa: PLC0415
    from cli.launcher.state_file import StateFile  # noqa: PLC0415

    console = Console(stderr=True)
    with console.status(f"restarting {name}"):
        restart_process(StateFile(state_folder()).running(), name)
    console.print(f"{name} serves again", highlight=False)


def status(as_json: AsJson = False) -> None:
    """Show processes and nodes; exit with 1 unless all of them serve."""
    from cli.connection import state_folder  # noqa: PLC0415
    from cli.launcher.state_file import StateFile  # noqa: PLC0415
    from cli.status import show_status  # noqa: PLC0415

    if not show_status(StateFile(state_folder()).running(), as_json=as_json):
        raise typer.Exit(1)


def nodes(url: Url = "", as_json: AsJson = False) -> None:
    """Show the live nodes and the arms they offer."""
    from cli.connection import GatewayApi, gateway_url, local_redis_url  # noqa: PLC0415
    from cli.status import show_nodes  # noqa: PLC0415

    show_nodes(GatewayApi(gateway_url(url)), "" if url else local_redis_url(), as_json=as_json)


def detect(
    source: Annotated[str, typer.Argument(help="Clip; with --live also the number of a camera, a URL or a folder.")],
    *,
    live: Annotated[
        bool, typer.Option(help="Process frames as they arrive and drop late ones; a clip plays at its own rate.")
    ] = False,
    fps: Annotated[float, typer.Option(min=0, help="Live: frames per second; 0 takes the rate of the source.")] = 0.0,
    piece_s: Annotated[float, typer.Option(min=0.1, help="Live: seconds of video that are sent together.")] = 1.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Live: unanswered pieces before a new one is dropped.")] = 2,
    model: Annotated[str, typer.Option(help="Use only this detector (default: the policy chooses).")] = "",
    service_class: Annotated[str, typer.Option("--class", help="Service class.")] = "standard",
    classes: Annotated[str, typer.Option(help="Object classes, separated by commas (default: all).")] = "",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop boxes with a lower score.")] = 0.3,
    mot: Annotated[bool, typer.Option("--mot", help="Print MOT text instead of one JSON object per frame.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the annotated clip and a contact sheet.")] = None,
    url: Url = "",
) -> None:
    """Find objects in a clip or a live camera; print boxes to stdout."""
    from cli.connection import GatewayApi, gateway_url  # noqa: PLC0415
    from cli.detect import DetectOptions, detect_clip, detect_live  # noqa: PLC0415

    api, options = GatewayApi(gateway_url(url)), DetectOptions(model, service_class, classes, min_score)
    if live:
        detect_live(api, source, options, fps=fps, piece_s=piece_s, in_flight=in_flight, as_mot=mot)
    elif Path(source).is_file():
        detect_clip(api, Path(source), options, out, as_mot=mot)
    else:
        raise SkyshoreError(f"no file '{source}'; a camera, a URL or a folder needs --live")


def explain(
    task: Annotated[str, typer.Argument(help="Task id, or the id of an upload (then all its segments are shown).")],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show how a task was placed: every arm, its score, and the chosen arm."""
    from cli.connection import GatewayApi, gateway_url  # noqa: PLC0415
    from cli.decisions.commands import explain as explain_task  # noqa: PLC0415

    explain_task(GatewayApi(gateway_url(url)), task, as_json=as_json)
