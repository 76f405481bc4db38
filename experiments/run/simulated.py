"""Runs a cell in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable

from experiments.figures.outcome_table import RecordSink
from experiments.plan.cell import ORACLE_SCHEDULE, REFERENCES, Cell, CellResult, PlannedCell, plan
from experiments.plan.job import Engine
from experiments.run.bounds import met_bound
from experiments.run.engine import Progress, carry_out
from experiments.run.references import PlacedBefore, best_placements
from simulator.build import Simulation, build, fleet
from simulator.timeline import Timeline
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.report.figures import FigureTally
from skyshore.report.request_record import RequestRecord
from skyshore.scenario import Scenario

__all__ = ["Progress", "run_simulated"]

APART = 1_000_003
"""Distance between seeds that share their requests and nothing else."""


def run_simulated(
    cell: Cell,
    *,
    on_record: RecordSink | None = None,
    on_decision: Callable[[DecisionRecord], None] | None = None,
    progress: Progress | None = None,
    chance: int = 0,
    engine: Engine = Engine.AUTO,
) -> CellResult:
    """Simulate a cell; `on_record` gets every request as it ends.

    Another `chance` means the same requests with other random draws of the policy and the links.

    Raises:
        SkyshoreError: the scenario, its schedule, the policy or the engine cannot be used.
        OSError: a file cannot be read.
    """
    planned = plan(cell)
    schedule, started_s = planned.schedule, time.perf_counter()
    arrivals = {arrival.request_id: arrival for arrival in schedule.arrivals}
    tiers = {node_id: str(node.tier) for node in planned.scenario.nodes for node_id in node.ids}
    tally = FigureTally()

    def ended(outcome: Outcome) -> None:
        record = RequestRecord.of(arrivals[outcome.task_id], outcome, tiers.get(outcome.node_id, ""))
        tally(record)
        if on_record is not None:
            on_record(record)

    scenario = planned.scenario.model_copy(update={"seed": planned.scenario.seed + chance * APART})
    simulation = _wired(planned, scenario, ended, on_decision)
    run = carry_out(simulation, scenario, schedule, engine, ended=ended, progress=progress)
    duration_s = max(schedule.duration_s, run.now_s) if run.complete else max(run.now_s, 1e-3)
    figures = tally.figures(duration_s, fleet_joules=run.fleet_joules)
    if cell.policy == ORACLE_SCHEDULE and run.complete:
        figures["met_bound"] = met_bound(planned)
    return CellResult(
        cell=cell,
        figures=figures,
        by_class=tally.by_class(duration_s),
        statuses=tally.statuses,
        energy_sources=tally.energy_sources,
        provenance="modelled",
        schedule_sha256=schedule.sha256,
        decisions_sha256=run.decisions_sha256,
        complete=run.complete,
        duration_s=duration_s,
        wall_s=time.perf_counter() - started_s,
        engine=run.engine,
    )


def _wired(
    planned: PlannedCell,
    scenario: Scenario,
    ended: Callable[[Outcome], None],
    on_decision: Callable[[DecisionRecord], None] | None,
) -> Simulation:
    """The fleet under the cell's policy, or under a reference schedule, which has no decisions."""
    if planned.cell.policy not in REFERENCES:
        return build(scenario, planned.folder, ended, on_decision=on_decision)
    timeline, dispatcher = Timeline(), PlacedBefore(best_placements(planned, planned.cell.policy))
    return Simulation(timeline, fleet(scenario, planned.folder, timeline, dispatcher, ended), dispatcher)
