"""References for policies: schedules made with knowledge of the whole run, simulated on the same requests.

`best_fixed_arm` sends every task that it can to one arm, the one with the most deadlines met. `oracle_schedule` is the
best schedule found with full knowledge (`experiments.run.oracle_schedule`). Neither is known before the run is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from operator import itemgetter

from experiments.plan.cell import ORACLE_SCHEDULE, PlannedCell
from experiments.run.bounds import requests_of, servers_of
from experiments.run.oracle_schedule import rules
from simulator.build import fleet
from simulator.policy import PolicyDriver
from skyshore.domain.node import Arm
from skyshore.domain.outcome import Outcome

Placements = Mapping[str, Arm]
"""Arm by task; a task without an arm is refused."""


def best_placements(plan: PlannedCell, reference: str) -> Placements:
    """The schedule with the most deadlines met, of all that are tried for a reference.

    Raises:
        InvalidScenario: a profile or trace cannot be used.
    """
    tried = rules(plan) if reference == ORACLE_SCHEDULE else _fixed(plan)
    placements, _ = max(((each, _met(plan, each)) for each in tried), key=itemgetter(1), default=({}, 0))
    return placements


def _met(plan: PlannedCell, placements: Placements) -> int:
    outcomes: list[Outcome] = []
    fleet(plan.scenario, plan.folder, PolicyDriver(placements)).run(plan.schedule.arrivals, outcomes.append)
    return sum(outcome.met_deadline for outcome in outcomes)


def _fixed(plan: PlannedCell) -> Iterator[Placements]:
    """One schedule per arm, for one of several equal nodes: the arm gets the tasks whose quality floor it reaches."""
    first = {table.ids[0] for table in plan.scenario.nodes}
    requests = requests_of(plan)
    for server in servers_of(plan):
        if server.arm.node_id in first:
            yield {request.task.task_id: server.arm for request in requests if server.takes(request)}


def digest_of(placements: Placements) -> str:
    """Hex SHA-256 over task and arm."""
    lines = (f"{task} {arm.arm_id}\n" for task, arm in placements.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
