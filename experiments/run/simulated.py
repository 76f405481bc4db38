"""Runs a cell in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable

from experiments.figures.outcome_table import RecordSink
from experiments.plan.cell import ORACLE_SCHEDULE, REFERENCES, Cell, CellResult, PlannedCell, plan
from experiments.plan.job import Engine
from experiments.run.bounds import met_bound
from experiments.run.engine import Progress, compiles, run_simulation
from experiments.run.references import best_placements, digest_of
from simulator.build import build, fleet
from simulator.policy import PolicyDriver
from simulator.simulation import Simulation
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.report.figures import FigureTally
from skyshore.report.request_record import RequestRecord
from skyshore.rules.kernel import keep
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
    arrays = compiles(engine, cell.policy, len(schedule.arrivals))
    simulation, decisions_sha256 = _wired(planned, scenario, on_decision, arrays=arrays)
    run = run_simulation(simulation, schedule, ended, progress)
    if arrays:
        keep(f"simulate-{cell.policy}")
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
        decisions_sha256=decisions_sha256 or run.decisions_sha256,
        complete=run.complete,
        duration_s=duration_s,
        wall_s=time.perf_counter() - started_s,
        engine=(Engine.COMPILED if arrays else Engine.PLAIN).value,
    )


def _wired(
    planned: PlannedCell, scenario: Scenario, on_decision: Callable[[DecisionRecord], None] | None, *, arrays: bool
) -> tuple[Simulation, str]:
    """The fleet under the cell's policy, or under a reference schedule, which comes with its digest."""
    if planned.cell.policy not in REFERENCES:
        return build(scenario, planned.folder, on_decision=on_decision, arrays=arrays), ""
    placements = best_placements(planned, planned.cell.policy)
    return fleet(scenario, planned.folder, PolicyDriver(placements), arrays=arrays), digest_of(placements)
