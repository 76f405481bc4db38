"""What policies are measured against, run in the same simulator on the same requests: schedules made in hindsight.

`best_fixed_arm` sends all that it can to one arm, the one of all that kept most deadlines; `foresight` is the best
schedule found with everything known (`experiments.run.oracle_schedule`). Neither could be had before the run was over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from operator import itemgetter

from experiments.plan.cell import FORESIGHT, Plan
from experiments.run.bounds import requests_of, servers_of
from experiments.run.oracle_schedule import rules
from simulator.build import fleet
from simulator.policy import PolicyDriver
from skyshore.domain.node import Arm
from skyshore.domain.outcome import Outcome

Placements = Mapping[str, Arm]
"""Arm by task; a task that has none is refused."""


def best_placements(plan: Plan, reference: str) -> Placements:
    """Of all schedules tried for a reference, the one that keeps most deadlines. Raises as reading the plan does."""
    tried = rules(plan) if reference == FORESIGHT else _fixed(plan)
    placements, _ = max(((each, _met(plan, each)) for each in tried), key=itemgetter(1), default=({}, 0))
    return placements


def _met(plan: Plan, placements: Placements) -> int:
    outcomes: list[Outcome] = []
    fleet(plan.scenario, plan.folder, PolicyDriver(placements)).run(plan.schedule.arrivals, outcomes.append)
    return sum(outcome.met_deadline for outcome in outcomes)


def _fixed(plan: Plan) -> Iterator[Placements]:
    """Every arm, and of nodes that are alike one; it gets the tasks whose quality floor it reaches."""
    first = {table.ids[0] for table in plan.scenario.nodes}
    requests = requests_of(plan)
    for server in servers_of(plan):
        if server.arm.node_id in first:
            yield {request.task.task_id: server.arm for request in requests if server.takes(request)}


def digest_of(placements: Placements) -> str:
    """Hex SHA-256 over task and arm."""
    lines = (f"{task} {arm.arm_id}\n" for task, arm in placements.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
