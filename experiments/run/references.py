"""References for policies: schedules made with knowledge of the whole run, simulated on the same requests.

`best_fixed_arm` sends every task that it can to one arm, the one with the most deadlines met. `oracle_schedule` is the
best schedule found with full knowledge (`experiments.run.oracle_schedule`). Neither is known before the run is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from experiments.plan.cell import ORACLE_SCHEDULE, PlannedCell
from experiments.run.bounds import flights_of, servers_of
from experiments.run.oracle_schedule import rules
from simulator.build import fleet
from simulator.flight import Flight
from simulator.timeline import Timeline
from skyshore.domain.errors import NoFeasibleArm, SkyshoreError
from skyshore.domain.node import Arm, Link, Node, NodeStatus
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
    timeline = Timeline()
    cluster = fleet(plan.scenario, plan.folder, timeline, PlacedBefore(placements), outcomes.append)
    cluster.start(plan.schedule.arrivals)
    timeline.run()
    return sum(outcome.met_deadline for outcome in outcomes)


def _fixed(plan: PlannedCell) -> Iterator[Placements]:
    """One schedule per arm, for one of several equal nodes: the arm gets the tasks whose quality floor it reaches."""
    first = {table.ids[0] for table in plan.scenario.nodes}
    flights = flights_of(plan)
    for server in servers_of(plan):
        if server.arm.node_id in first:
            yield {flight.task.task_id: server.arm for flight in flights if server.takes(flight)}


class PlacedBefore:
    """A dispatcher that follows a given schedule."""

    slot_s = 0.0

    def __init__(self, placements: Placements) -> None:
        self._placements = placements

    @property
    def digest(self) -> str:
        """Hex SHA-256 over task and arm."""
        lines = (f"{task} {arm.arm_id}\n" for task, arm in self._placements.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def place(self, now_s: float, flight: Flight, avoid: Sequence[str]) -> Arm | None:
        """See `simulator.dispatch.Dispatcher`; there is no second choice."""
        del now_s
        arm = self._placements.get(flight.task.task_id)
        if arm is None or arm.node_id in avoid:
            raise NoFeasibleArm("the reference schedule refuses this task")
        return arm

    def ended(self, now_s: float, outcome: Outcome) -> None:
        """See `Dispatcher`; it does not learn."""

    def reported(self, now_s: float, node: Node, status: NodeStatus) -> None:
        """See `Dispatcher`."""

    def measured(self, now_s: float, node_id: str, link: Link) -> None:
        """See `Dispatcher`."""

    def lost(self, now_s: float, node_id: str) -> None:
        """See `Dispatcher`."""

    def tick(self, now_s: float) -> Sequence[tuple[str, Arm | SkyshoreError]]:
        """See `Dispatcher`."""
        del now_s
        return ()
