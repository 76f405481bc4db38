"""Runs one scenario and prints what came of it; an interrupted run prints what there is and says so."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from simulator.build import Simulation, build, joules_of
from simulator.garbage import rare_collections
from simulator.tally import Tally
from skyshore.domain.errors import SkyshoreError
from skyshore.scenario import read_scenario
from skyshore.scenario.files import schedule_of
from skyshore.workload.schedule import Schedule

USAGE = "usage: python -m simulator SCENARIO.toml [POLICY]"


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        figures = simulate(Path(arguments[0]), *arguments[1:])
    except (SkyshoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=2))
    return 0


def simulate(path: Path, policy: str = "") -> dict[str, object]:
    """Figures of one run; `policy` replaces the scenario's.

    Raises:
        SkyshoreError: the scenario, its schedule or the policy cannot be used.
        OSError: the file cannot be read.
    """
    scenario = read_scenario(path.read_text(encoding="utf-8"), str(path))
    if policy:
        scenario = scenario.model_copy(update={"policy": policy})
    schedule = schedule_of(scenario, path.parent)
    tiers = {node_id: node.tier for node in scenario.nodes for node_id in node.ids}
    tally = Tally(tiers)
    simulation = build(scenario, path.parent, tally.add)
    print(
        f"simulating {len(schedule.arrivals)} requests; Ctrl-C ends it with what is done", file=sys.stderr, flush=True
    )
    complete = _run(simulation, schedule)
    duration_s = max(schedule.duration_s, simulation.timeline.now_s)
    return {
        "scenario": scenario.name,
        "policy": scenario.policy,
        "seed": scenario.seed,
        "complete": complete,
        "virtual_s": simulation.timeline.now_s,
        "events": simulation.timeline.events,
        "schedule_sha256": schedule.sha256,
        "decisions_sha256": simulation.dispatcher.digest,
        **tally.to_json(duration_s),
        "node_joules": joules_of(simulation.cluster.nodes),
    }


class _Interrupted(Exception):
    pass


def _run(simulation: Simulation, schedule: Schedule) -> bool:
    """Run to the end, or to Ctrl-C; whether it was the end. Between two events the figures are always consistent."""

    def stop(_: int, __: FrameType | None) -> None:
        simulation.timeline.at(simulation.timeline.now_s, _interrupt, None)

    def _interrupt(_: None) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGINT, stop)
    try:
        with rare_collections():
            simulation.cluster.start(schedule.arrivals)
            simulation.timeline.run()
    except _Interrupted:
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    return True
