"""How a simulation decides: by a kernel policy, by a Python policy, or by given placements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import proxy

import numpy as np

from simulator import kernel, placing
from simulator.preferences import SegmentPictures
from simulator.requests import TaskRequest, request_of
from simulator.state import AskPolicy, GivenPlacements
from skyshore.domain.node import Arm
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.policies.protocol import (
    ESTIMATED,
    REFUSED,
    ArmEstimate,
    Arms,
    ArmTable,
    Context,
    Feedback,
    Policy,
    SlottedPolicy,
    slot_s,
)
from skyshore.rules.kernel import compiled
from skyshore.rules.records import NONE, Options, fields_of, get, put
from skyshore.scheduling.actions import LOGGED_ARMS, Choice, shown_arms
from skyshore.scheduling.tables import KindTable
from skyshore.workload.arrival import Arrival

if TYPE_CHECKING:
    from simulator.simulation import Simulation

KINDS = tuple(TaskKind)
FIRST_ROOM = 256
"""Tasks under way for which there is room at first; it doubles when they are more."""


class PolicyDriver:
    """What the simulation needs of a policy. This driver decides nothing: placements are given by task."""

    slot_s = 0.0
    shows_decisions = False
    ends_slots = False
    """Whether the kernel ends small slots by itself."""
    plans_slots = False
    """Whether the kernel lets the policy plan them."""

    def __init__(self, placements: Mapping[str, Arm]) -> None:
        """A task that has no arm is refused."""
        self._placements = placements
        self._arms: list[int] = []
        self._groups: dict[str, int] = {}
        self._given = GivenPlacements([])

    @property
    def state(self) -> Any:
        """What the kernel is given."""
        if len(self._given.arms) != len(self._arms):
            arms = np.array(self._arms, dtype=np.int64) if self.simulation.arrays else list(self._arms)
            self._given = GivenPlacements(arms)
        return self._given

    def attach(self, simulation: Simulation) -> None:
        """Learn of the fleet, before its records are made."""
        self.simulation = proxy(simulation)  # no cycle: a run's records are freed as it is dropped
        self._numbers = {arm.arm_id: number for number, arm in enumerate(simulation.fleet.arms)}

    def group(self, arrival: Arrival) -> int:
        """The number of the group in which the policy learns from a request: its service class, if it says no other."""
        return self._groups.setdefault(arrival.service_class, len(self._groups))

    def taken(self, number: int, arrival: Arrival) -> None:
        """A request will be handed over."""
        arm = self._placements.get(arrival.request_id)
        self._arms.append(self._numbers[arm.arm_id] if arm else NONE)

    def make_room(self, tasks: int) -> None:
        """Task numbers are below this."""

    def fleet_changed(self) -> None:
        """A node came or went."""

    def decide(self, number: int) -> None:
        """Write the arm of a task into the decision."""

    def update(self, number: int) -> None:
        """The outcome of an attempt is known."""

    def plan(self, waiting: Sequence[int]) -> None:
        """A slot has ended; these tasks will be decided on, in this order."""

    def show_decision(self, number: int) -> None:
        """A task was decided on."""

    def forget(self, number: int) -> None:
        """The task of this arrival has ended."""


class DecidingPolicy(PolicyDriver):
    """A policy of either form. `on_decision` is shown every decision, refusals too."""

    def __init__(self, name: str, policy: Policy, on_decision: Callable[[DecisionRecord], None] | None = None) -> None:
        super().__init__({})
        self.name, self.policy, self._on_decision = name, policy, on_decision
        self.slot_s, self.shows_decisions = slot_s(policy), on_decision is not None
        self._pictures = SegmentPictures()
        self._arrivals: dict[int, Arrival] = {}
        self._requests: dict[int, TaskRequest] = {}
        self._ended: set[int] = set()
        self._tables: dict[TaskKind, KindTable] = {}
        self._in_kernel = isinstance(policy, KernelPolicy)
        self.ends_slots = self._in_kernel and not self.shows_decisions
        self.plans_slots = isinstance(policy, KernelPolicy) and policy.plans_slots

    def attach(self, simulation: Simulation) -> None:
        """See PolicyDriver."""
        self.simulation = proxy(simulation)
        if isinstance(self.policy, KernelPolicy):
            for kind, table in simulation.fleet.tables.items():
                simulation.fleet.number_arms(kind, *self.policy.number_arms(table.shown))
            self.policy.make_room(nodes=len(simulation.fleet.nodes), tasks=FIRST_ROOM)
            self.policy.make_slot_room(kernel.SMALL_SLOT)
            self.policy.use(arrays=simulation.arrays)

    @property
    def state(self) -> Any:
        """The policy's own state, or a note that Python must be asked."""
        if isinstance(self.policy, KernelPolicy):
            return self.policy.state
        return AskPolicy(self.simulation.run_records.clock)

    def group(self, arrival: Arrival) -> int:
        """See PolicyDriver."""
        if not isinstance(self.policy, KernelPolicy):
            return 0
        if not self.policy.groups_by_profile:
            return self.policy.group(arrival.service_class)
        request = request_of(arrival, self._pictures)
        return self.policy.group_of(request.task, request.profile)

    def taken(self, number: int, arrival: Arrival) -> None:
        """See PolicyDriver."""
        if not self._in_kernel or self.shows_decisions:
            self._arrivals[number] = arrival

    def make_room(self, tasks: int) -> None:
        """See PolicyDriver."""
        if isinstance(self.policy, KernelPolicy):
            self.policy.make_room(nodes=len(self.simulation.fleet.nodes), tasks=tasks)

    def fleet_changed(self) -> None:
        """See PolicyDriver."""
        if not self._in_kernel or self.shows_decisions:
            fleet, order = self.simulation.fleet, self.simulation.view.order
            self._tables = {}
            for number, (kind, table) in enumerate((kind, fleet.tables.get(kind)) for kind in KINDS):
                if table is not None and order[number][0]:
                    rows = [int(arm) - table.first for arm in order[number][1 : int(order[number][0]) + 1]]
                    self._tables[kind] = _table_of_rows(table, rows)

    def decide(self, number: int) -> None:
        """See PolicyDriver."""
        task = fields_of(self.simulation.run_records.tasks[number])
        decision = self.policy.select(self._context(task), self._arms_shown(task["kind"]))
        put(
            self.simulation.view.options.decision[0],
            {
                "index": NONE if decision.index == REFUSED else decision.index,
                "propensity": decision.propensity,
                "transient": int(decision.transient),
            },
        )
        self._decision = decision

    def update(self, number: int) -> None:
        """See PolicyDriver."""
        simulation = self.simulation
        attempt = fields_of(simulation.run_records.attempts[number])
        arrival_number = attempt["serial"] - 1
        request = self._request(arrival_number)
        outcome = simulation.outcomes.of_attempt(attempt, request.arrival)
        context = Context(attempt["decided_s"], request.task, request.profile, attempt["waited_s"])
        estimate = _estimate(attempt, simulation.fleet.arms[attempt["arm"]])
        self.policy.update(Feedback(simulation.now_s, context, estimate, outcome, attempt["reward"]))

    def plan(self, waiting: Sequence[int]) -> None:
        """See PolicyDriver."""
        if isinstance(self.policy, KernelPolicy):
            self._plan_in_kernel(waiting)
        elif isinstance(self.policy, SlottedPolicy):
            self._plan_in_python(self.policy, waiting)

    def _plan_in_kernel(self, waiting: Sequence[int]) -> None:
        assert isinstance(self.policy, KernelPolicy)
        if self.policy.plans_slots:
            self.policy.make_slot_room(len(waiting))
            simulation = self.simulation
            plan = compiled(placing.plan_gathered) if simulation.arrays else placing.plan_gathered
            line = [len(waiting), *waiting]
            numbers = np.array(line) if simulation.arrays else line
            plan(simulation.run_records, simulation.view, self.policy.state, numbers)

    def _plan_in_python(self, policy: SlottedPolicy, waiting: Sequence[int]) -> None:
        simulation, contexts, options = self.simulation, [], []
        listed = compiled(placing.list_gathered) if simulation.arrays else placing.list_gathered
        for number in waiting:
            listed(simulation.run_records, simulation.view, number)
            if get(simulation.view.options.decision[0], "count"):
                task = fields_of(simulation.run_records.tasks[number])
                contexts.append(self._context(task))
                options.append(self._arms_shown(task["kind"]).copy())
        policy.plan(contexts, options)

    def show_decision(self, number: int) -> None:
        """See PolicyDriver."""
        simulation, options = self.simulation, self.simulation.view.options
        task, count = fields_of(simulation.run_records.tasks[number]), get(options.decision[0], "count")
        context = self._context(task)
        if count == 0:
            choice, chosen = Choice(context, self.name), ""
        else:
            table = self._tables[KINDS[task["kind"]]]
            decision = self.policy.decision(options, count) if isinstance(self.policy, KernelPolicy) else self._decision
            choice = Choice(context, self.name, decision, shown_arms(table, options, count, decision, LOGGED_ARMS))
            chosen = "" if decision.index == REFUSED else simulation.fleet.arms[task["arm"]].arm_id
        assert self._on_decision is not None, "decisions are shown to somebody"
        self._on_decision(choice.record(chosen))

    def forget(self, number: int) -> None:
        """See PolicyDriver."""
        if number in self._arrivals:
            self._ended.add(number)
            if len(self._ended) > MOST_ENDED:
                for old in sorted(self._ended)[: MOST_ENDED // 2]:
                    self._drop(old)

    def _drop(self, number: int) -> None:
        self._arrivals.pop(number, None)
        self._requests.pop(number, None)
        self._ended.discard(number)

    def _request(self, number: int) -> TaskRequest:
        request = self._requests.get(number)
        if request is None:
            request = self._requests[number] = request_of(self._arrivals[number], self._pictures)
        return request

    def _context(self, task: Mapping[str, Any]) -> Context:
        request = self._request(task["number"])
        return Context(task["now_s"], request.task, request.profile, task["waited_s"])

    def _arms_shown(self, kind: int) -> Arms:
        options: Options = self.simulation.view.options
        return self._tables[KINDS[kind]].options(options, get(options.decision[0], "count"))


MOST_ENDED = 20_000
"""Ended requests that are kept because an outcome of theirs may still reach the policy."""


def _table_of_rows(table: KindTable, rows: Sequence[int]) -> KindTable:
    """The table of the nodes that are here, in the order in which they came."""
    shown = table.shown
    where = np.array(rows, dtype=np.intp)
    return KindTable(
        table.first,
        tuple(table.arms[row] for row in rows),
        ArmTable(
            kind=shown.kind,
            arm_ids=tuple(shown.arm_ids[row] for row in rows),
            node_ids=tuple(shown.node_ids[row] for row in rows),
            node=shown.node[where],
            is_cloud=shown.is_cloud[where],
            quality=shown.quality[where],
            slots=shown.slots[where],
            engines=tuple(shown.engines[row] for row in rows),
        ),
        table.models,
    )


def _estimate(attempt: Mapping[str, Any], arm: Arm) -> ArmEstimate:
    numbers = (attempt[name] for name in ESTIMATED)
    return ArmEstimate(arm.arm_id, arm.node_id, bool(attempt["is_cloud"]), *numbers)
