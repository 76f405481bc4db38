"""Runs a simulation on the plain engine or on the compiled one; their results are equal to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.plan.job import Engine
from simulator.build import Simulation, joules_of
from simulator.compiled.scope import why_plain
from simulator.garbage import rare_collections
from skyshore.domain.errors import InvalidTask
from skyshore.domain.outcome import Outcome
from skyshore.scenario import Scenario
from skyshore.workload.arrival import Arrival
from skyshore.workload.schedule import Schedule

MANY = 100_000
"""From so many requests on, machine code is worth the half minute that making it takes the first time."""
STEPS = 200
"""How often a plain run says how far it is, and asks whether to stop."""

Progress = Callable[[float], bool]
"""Called with the share done, in 0..1. It returns False to end the run early with partial results."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A run that is over, or was stopped."""

    engine: str
    """`compiled`, or `plain` and why."""
    complete: bool
    now_s: float
    fleet_joules: float
    decisions_sha256: str


class _Stopped(Exception):
    pass


def carry_out(
    simulation: Simulation,
    scenario: Scenario,
    schedule: Schedule,
    wanted: Engine,
    *,
    ended: Callable[[Outcome], None],
    progress: Progress | None,
) -> Carried:
    """Run to the end, or until `progress` says to stop; `ended` is what the simulation was wired to tell outcomes to.

    Raises:
        InvalidTask: the compiled engine is asked for and cannot do this.
    """
    reason = "asked for" if wanted is Engine.PLAIN else why_plain(scenario, simulation)
    if reason and wanted is Engine.COMPILED:
        raise InvalidTask(f"the compiled engine cannot do this: {reason}; leave --engine out", param="engine")
    if not reason and wanted is Engine.AUTO and len(schedule.arrivals) < MANY:
        reason = f"fewer than {MANY:,} requests"
    if reason:
        return _plain(simulation, schedule, progress, reason)
    return _compiled(simulation, schedule, ended, progress)


def _plain(simulation: Simulation, schedule: Schedule, progress: Progress | None, reason: str) -> Carried:
    complete = True
    if progress is not None:
        _report(simulation, schedule.duration_s, progress)
    try:
        with rare_collections():
            simulation.cluster.start(schedule.arrivals)
            simulation.timeline.run()
    except _Stopped:
        complete = False
    joules = sum(joules_of(simulation.cluster.nodes).values())
    return Carried(f"plain: {reason}", complete, simulation.timeline.now_s, joules, simulation.dispatcher.digest)


def _report(simulation: Simulation, duration_s: float, progress: Progress) -> None:
    """Between two events the figures are always consistent, so a run may stop at any of these."""
    timeline = simulation.timeline

    def step(_: None) -> None:
        if not progress(min(1.0, timeline.now_s / duration_s)):
            raise _Stopped
        timeline.at(timeline.now_s + duration_s / STEPS, step, None)

    timeline.at(0.0, step, None)


def _compiled(
    simulation: Simulation, schedule: Schedule, ended: Callable[[Outcome], None], progress: Progress | None
) -> Carried:
    from simulator.compiled.engine import CompiledRun  # noqa: PLC0415 (numba is an extra)

    run, complete = CompiledRun(simulation), True
    arrivals: Sequence[Arrival] = schedule.arrivals
    with rare_collections():
        for batch in run.batches(run.requests(iter(arrivals))):
            for outcome in run.outcomes(batch, arrivals):
                ended(outcome)
            if progress is not None and not progress(min(1.0, run.now_s / schedule.duration_s)):
                complete = False
                break
    return Carried("compiled", complete, run.now_s, sum(run.joules().values()), run.digest)
