"""The `skyshore` command. Each command imports its modules when it runs, so that `--help` is fast."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cli import system
from cli.options import AsJson, Emulated, ScenarioFile, Url
from skyshore.domain.errors import SkyshoreError

app = typer.Typer(
    help="Run, compare and replay policies that place video and language-model requests on edge and cloud nodes.",
    no_args_is_help=True,
    add_completion=False,
)

SimEngine = Annotated[str, typer.Option(help="Simulation engine: auto, plain or compiled. The results are equal.")]

for _command in (system.up, system.down, system.restart, system.status, system.nodes):
    app.command(rich_help_panel="System")(_command)


@app.command(rich_help_panel="Experiments")
def demo(
    *,
    emulated: Emulated = False,
    seconds: Annotated[float, typer.Option(help="Length of the replayed trace.")] = 30.0,
    out: Annotated[Path, typer.Option(help="Folder for pictures and reports.")] = Path("demo-output"),
) -> None:
    """Start a system, send a real chat and a real clip, replay a mixed trace, and print the report."""
    from cli.demo.run import run_demo  # noqa: PLC0415

    if not run_demo(emulated=emulated, seconds=seconds, out=out):
        raise typer.Exit(1)


@app.command(rich_help_panel="Experiments")
def replay(
    trace: Annotated[
        Path, typer.Argument(help="Schedule file from `skyshore traces make`, or the scenario that the system runs.")
    ],
    *,
    url: Url = "",
    out: Annotated[Path | None, typer.Option(help="Report file (default: beside the trace).")] = None,
    model: Annotated[str, typer.Option(help="Use only this language model (default: the policy chooses).")] = "",
    tokenizer: Annotated[
        str, typer.Option(help="Cached model, or `emulated`, whose tokenizer makes prompt lengths exact.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Play a schedule in open loop against the gateway and report; Ctrl-C saves partial results.

    The schedule of a scenario is played with its faults, and its links follow the same clock.
    """
    from rich.console import Console  # noqa: PLC0415

    from cli.connection import GatewayApi, gateway_url  # noqa: PLC0415
    from cli.replay import play_schedule, read_play, show_result  # noqa: PLC0415

    address = gateway_url(url)
    play = read_play(trace, address)
    policy = str(GatewayApi(address).get("/v1/policy")["policy"])
    console = Console(stderr=as_json)
    tokens = tokenizer or play.tokenizer
    result = play_schedule(play.schedule, address, policy, console, model=model, tokenizer=tokens, stage=play.stage)
    show_result(result, out or trace.with_suffix(".result.json"), console, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(130)


@app.command(rich_help_panel="Experiments")
def simulate(
    scenario: ScenarioFile,
    *,
    policy: Annotated[str, typer.Option(help="Policy (default: from the scenario).")] = "",
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed (default: from the scenario).")] = None,
    load: Annotated[float, typer.Option(help="Factor by which arrival rates are multiplied.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a run bundle with one row per request and per decision.")
    ] = None,
    engine: SimEngine = "auto",
    as_json: AsJson = False,
) -> None:
    """Simulate a scenario in virtual time and print its figures; Ctrl-C saves partial results."""
    _needs_sim()
    from cli.simulate import run_simulate  # noqa: PLC0415

    if status := run_simulate(scenario, policy, seed, load, out, engine=engine, as_json=as_json):
        raise typer.Exit(status)


@app.command(rich_help_panel="Experiments")
def calibrate(
    run: Annotated[Path, typer.Argument(help="Folder made by `skyshore compare --driver live`.", metavar="RUN_DIR")],
    *,
    out: Annotated[Path, typer.Option(help="File to write; a scenario names it as `calibration`.")],
    as_json: AsJson = False,
) -> None:
    """Fit node models and overheads to a live run, so that a simulation predicts the next one."""
    from cli.calibrate import run_calibrate  # noqa: PLC0415

    run_calibrate(run, out, as_json=as_json)


@app.command(rich_help_panel="Experiments")
def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder made by `skyshore compare`.", metavar="BUNDLE")],
    *,
    jobs: Annotated[int, typer.Option(min=0, help="Number of cells that run at the same time; 0 is one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check the files of a run bundle, run its cells again and report differences; exit with 1 if there are any."""
    _needs_sim()
    from cli.verify import run_verify  # noqa: PLC0415

    if not run_verify(bundle, jobs, as_json=as_json):
        raise typer.Exit(1)


@app.command(rich_help_panel="Experiments")
def compare(
    scenario: ScenarioFile,
    *,
    policies: Annotated[str, typer.Option(help="Policies, separated by commas. The first one is the baseline.")] = "",
    baseline: Annotated[
        str, typer.Option(help="Policy that the others are compared with (default: the first one).")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of paired seeds.")] = 5,
    first_seed: Annotated[int | None, typer.Option(min=0, help="First seed (default: from the scenario).")] = None,
    loads: Annotated[
        str, typer.Option(help="Factors by which arrival rates are multiplied, separated by commas.")
    ] = "1",
    driver: Annotated[str, typer.Option(help="sim, live, or both, separated by a comma.")] = "sim",
    jobs: Annotated[int, typer.Option(min=0, help="Number of cells that run at the same time; 0 is one per core.")] = 0,
    executor: Annotated[str, typer.Option(help="Where cells run: process, or ray for a cluster.")] = "process",
    ray_address: Annotated[
        str, typer.Option(help="Address of a Ray cluster (default: a new one on this machine).")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the run bundle (default: out/NAME-HASH).")] = None,
    rows: Annotated[bool, typer.Option(help="Save one row per request (Parquet).")] = True,
    decisions: Annotated[bool, typer.Option("--decisions", help="Save one row per decision too.")] = False,
    bound: Annotated[
        bool, typer.Option("--bound", help="Add the regret: best fixed arm, oracle schedule and upper bound.")
    ] = False,
    engine: SimEngine = "auto",
    as_json: AsJson = False,
) -> None:
    """Run policies on the same requests over several seeds; write figures with intervals, a report and a run bundle."""
    _needs_sim()
    from cli.compare import CompareOptions, run_compare  # noqa: PLC0415

    given = (scenario, policies, baseline, seeds, first_seed, loads, driver, jobs, executor, ray_address, out)
    if status := run_compare(CompareOptions(*given, rows, decisions, bound, engine), as_json=as_json):
        raise typer.Exit(status)


@app.command(rich_help_panel="Decisions")
def evaluate(
    policy: Annotated[str, typer.Argument(help="Policy to evaluate; see `skyshore policy show`.")],
    *,
    on: Annotated[Path, typer.Option(help="Decision log, from `decisions export` or `compare --decisions`.")],
    seed: Annotated[int, typer.Option(help="Seed for random policies.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate the results of a policy from the decision log of another policy."""
    from cli.evaluate import run_evaluate  # noqa: PLC0415

    run_evaluate(policy, on, seed, as_json=as_json)


@app.command(rich_help_panel="Experiments")
def bench(
    name: Annotated[str, typer.Argument(help="Name of a file in benchmarks/.")],
    quick: Annotated[bool, typer.Option("--quick", help="Run only a smoke test, if the benchmark has one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one benchmark and its comparison baselines."""
    from cli.bench import run_bench  # noqa: PLC0415

    run_bench(name, as_json=as_json, quick=quick)


app.command(rich_help_panel="System")(system.detect)
app.command(rich_help_panel="Decisions")(system.explain)


def _needs_sim() -> None:
    from cli.extras import require  # noqa: PLC0415

    require("sim", "pyarrow", "matplotlib")


GROUPS = {
    "models": ("cli.models", "Models and sample clips: list, fetch, verify, build.", "Models"),
    "traces": ("cli.traces.commands", "Schedules of requests: make, show, check.", "Experiments"),
    "train": ("cli.train", "Train the small models that ship with Skyshore.", "Models"),
    "profile": ("cli.profile.commands", "Measure the arms of this machine: time, bytes, joules, quality.", "Models"),
    "decisions": ("cli.decisions.commands", "The decision log: newest decisions, export.", "Decisions"),
    "policy": ("cli.policy", "The policy that places tasks: show, set.", "Decisions"),
}
"""Name of a group of commands -> the module that holds its `app`, its help, its panel."""


def _add_group(name: str, module: str, about: str, panel: str) -> None:
    """Add a group of commands whose module is imported only when it is used."""

    def group(context: typer.Context) -> None:
        import_module(module).app(args=context.args, prog_name=f"skyshore {name}")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command(name, help=about, context_settings=settings, rich_help_panel=panel, add_help_option=False)(group)


for _name, _group in GROUPS.items():
    _add_group(_name, *_group)


def main() -> None:
    """Run the command; print an error as one sentence, not as a traceback."""
    try:
        app()
    except SkyshoreError as error:
        problem = error.message
    except OSError as error:  # for example a full disk, or a folder without write permission
        reason = error.strerror or str(error)
        problem = f"{error.filename}: {reason}" if error.filename else reason
    else:
        return
    print(f"skyshore: {problem}", file=sys.stderr)
    sys.exit(1)
