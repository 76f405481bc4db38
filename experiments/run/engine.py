"""Runs a simulation and reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.plan.job import Engine
from simulator.simulation import Simulation
from skyshore.domain.errors import InvalidTask
from skyshore.domain.outcome import Outcome
from skyshore.rules.kernel import can_compile, is_kept
from skyshore.workload.schedule import Schedule

MANY = 100_000
"""From so many requests on, machine code is worth the minute that making it takes the first time."""
STEPS = 200
"""How often a run reports its progress."""

Progress = Callable[[float], bool]
"""Called with the share done, in 0..1. It returns False to end the run early with partial results."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over, or was stopped."""

    complete: bool
    now_s: float
    fleet_joules: float
    decisions_sha256: str


def compiles(wanted: Engine, policy: str, requests: int) -> bool:
    """Whether a run uses machine code.

    Raises:
        InvalidTask: machine code is asked for, and numba is not installed.
    """
    if wanted is Engine.COMPILED and not can_compile():
        raise InvalidTask(
            "machine code needs numba: pip install 'skyshore[sim]', or leave --engine out", param="engine"
        )
    if wanted is not Engine.AUTO:
        return wanted is Engine.COMPILED
    return can_compile() and (requests >= MANY or is_kept(f"simulate-{policy}"))


def run_simulation(
    simulation: Simulation, schedule: Schedule, on_outcome: Callable[[Outcome], None], progress: Progress | None
) -> FinishedRun:
    """Run to the end, or until `progress` says to stop."""
    complete = True

    def step() -> None:
        nonlocal complete
        if progress is not None and not progress(min(1.0, simulation.now_s / schedule.duration_s)):
            complete = False
            simulation.stop()
        else:
            simulation.at(simulation.now_s + schedule.duration_s / STEPS, step)

    if progress is not None:
        simulation.at(0.0, step)
    simulation.run(schedule.arrivals, on_outcome)
    return FinishedRun(complete, simulation.now_s, sum(simulation.joules().values()), simulation.digest)
