"""The live fleet as the scheduler knows it: nodes, their room, and the tasks on their way."""

from __future__ import annotations

from dataclasses import dataclass, field

from skyshore.domain.node import Link, Node, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import ArmEstimate, Context
from skyshore.scheduling.link_estimate import LinkEstimate
from skyshore.scheduling.node_columns import NodeColumns, NodeState
from skyshore.scheduling.tables import KindTable, build_table


@dataclass(slots=True, eq=False)
class InFlight:
    """A task placed and not yet ended."""

    context: Context
    arm: ArmEstimate
    state: NodeState
    """That of its node."""
    attempt: int
    service_s: float
    """Work added to the node's backlog."""
    bytes_per_s: float
    """Rate reserved on the node's link."""
    expires_at_s: float


@dataclass(slots=True, eq=False)
class _Member:
    node: Node
    state: NodeState
    tasks: set[str] = field(default_factory=set)
    peak: float = 0.0
    """Most tasks of ours since the last heartbeat, and before that."""
    last_peak: float = 0.0
    guess: LinkEstimate | None = field(default_factory=LinkEstimate)
    """None once somebody measures the link."""


class Fleet:
    """Nodes by id, arms by kind, tasks by id."""

    def __init__(self) -> None:
        self.columns = NodeColumns()
        self.in_flight: dict[str, InFlight] = {}
        self._superseded: dict[tuple[str, str], InFlight] = {}
        self._members: dict[str, _Member] = {}
        self._tables: dict[TaskKind, KindTable | None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def node(self, node_id: str) -> Node | None:
        """A live node by name."""
        member = self._members.get(node_id)
        return member.node if member else None

    def numbers(self, node_ids: tuple[str, ...]) -> list[int]:
        """Numbers of those of these nodes that live."""
        return [member.state.number for node_id in node_ids if (member := self._members.get(node_id))]

    def table(self, kind: TaskKind) -> KindTable | None:
        """All arms of a kind; None if no live node has one."""
        if kind not in self._tables:
            nodes = [(member.state, member.node) for member in self._members.values()]
            self._tables[kind] = build_table(kind, nodes)
        return self._tables[kind]

    def report(self, node: Node, status: NodeStatus) -> list[str]:
        """Take in a heartbeat. Returns the tasks lost because the node was started anew since the last one."""
        member = self._members.get(node.node_id)
        lost: list[str] = []
        if member is not None and member.node.incarnation != node.incarnation:
            lost, member = self.lose(node.node_id), None
        if member is None:
            member = self._members[node.node_id] = _Member(node, self.columns.take())
            self._tables.clear()
        elif member.node is not node and member.node != node:
            member.node = node
            self._tables.clear()
        self._take_status(member, status)
        return lost

    def _take_status(self, member: _Member, status: NodeStatus) -> None:
        own = member.state.own
        # A heartbeat is up to a period old, so it may count tasks of ours that ended since. Against the most we had
        # in flight at any time it could be from, the rest is surely somebody else's.
        ours_then = max(member.peak, member.last_peak, own)
        member.last_peak, member.peak = member.peak, own
        self.columns.set_status(
            member.state,
            foreign=max(0.0, status.running + status.queued - ours_then),
            capacity=max(status.capacity, 1),
            kv_used=status.kv_used,
            draining=status.draining,
        )

    def lose(self, node_id: str) -> list[str]:
        """Forget a node. Returns its tasks, which are no longer in flight."""
        member = self._members.get(node_id)
        if member is None:
            return []
        lost = sorted(member.tasks)
        for task_id in lost:
            self.release(task_id)
        del self._members[node_id]
        self.columns.give_back(member.state)
        self._tables.clear()
        return lost

    def set_link(self, node_id: str, link: Link) -> None:
        """Take a measured link for granted; ignored for a node that is not here."""
        member = self._members.get(node_id)
        if member is not None:
            member.guess = None
            self.columns.set_link(member.state, link)

    def observe_link(self, outcome: Outcome) -> None:
        """Improve the guess at a link nobody measures."""
        member = self._members.get(outcome.node_id)
        if member is not None and member.guess is not None:
            guess = member.guess
            guess.observe(outcome)
            self.columns.guess_link(member.state, guess.up_bytes_per_s, guess.rtt_s, guess.joules_per_byte)

    def reserve(self, context: Context, arm: ArmEstimate, attempt: int, grace_s: float) -> None:
        """Count a task against its node from now until `release`."""
        task_id, remaining_s = context.task.task_id, context.remaining_s
        member = self._members[arm.node_id]
        state = member.state
        flight = InFlight(
            context=context,
            arm=arm,
            state=state,
            attempt=attempt,
            service_s=arm.service_s,
            bytes_per_s=arm.up_bytes / max(remaining_s, 1e-3),
            expires_at_s=context.now_s + max(remaining_s, 0.0) + grace_s,
        )
        self.in_flight[task_id] = flight
        member.tasks.add(task_id)
        self.columns.add_task(state, flight.service_s, flight.bytes_per_s)
        member.peak = max(member.peak, state.own)

    def release(self, task_id: str) -> InFlight | None:
        """The task ended, however it did. Returns what was kept of it; None if it was not in flight."""
        flight = self.in_flight.pop(task_id, None)
        if flight is None:
            return None
        self._members[flight.arm.node_id].tasks.discard(task_id)
        self.columns.drop_task(flight.state, flight.service_s, flight.bytes_per_s)
        return flight

    def mark_full(self, node_id: str) -> None:
        """The node turned a task away: believe it until its next heartbeat."""
        member = self._members.get(node_id)
        if member is not None:
            self.columns.fill(member.state)

    def supersede(self, task_id: str) -> InFlight | None:
        """The task is placed anew: give its room back, but remember the attempt, for its outcome may still come."""
        flight = self.release(task_id)
        if flight is not None:
            self._superseded[task_id, flight.arm.arm_id] = flight
        return flight

    def end(self, task_id: str, arm_id: str) -> InFlight | None:
        """An attempt ended: give its room back. Returns what was kept of it, None if nothing is known of it."""
        flight = self.in_flight.get(task_id)
        if flight is not None and flight.arm.arm_id == arm_id:
            return self.release(task_id)
        return self._superseded.pop((task_id, arm_id), None)

    def expire(self, now_s: float) -> None:
        """Forget attempts nobody told the end of, though their deadline and the grace are over."""
        for task_id in [task_id for task_id, flight in self.in_flight.items() if flight.expires_at_s <= now_s]:
            self.release(task_id)
        for key in [key for key, flight in self._superseded.items() if flight.expires_at_s <= now_s]:
            del self._superseded[key]
