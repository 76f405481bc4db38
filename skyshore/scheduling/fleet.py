"""The live fleet as the scheduler knows it: nodes, their room, and the attempts on their way, as records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skyshore.domain.node import Link, Node, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import KernelPolicy, fill_outcome
from skyshore.policies.protocol import ArmEstimate, Context
from skyshore.rules import heartbeat, reserve
from skyshore.rules.kernel import entry
from skyshore.rules.link_guess import guess_link
from skyshore.rules.records import (
    ATTEMPT,
    KINDS,
    NODE,
    Integers,
    Record,
    Records,
    blank_options,
    get,
    in_form,
    integers,
    put,
    rows,
    with_room,
)
from skyshore.scheduling.tables import KindTable, arm_records

FIRST_ROOM = 16


@dataclass(slots=True, eq=False)
class OpenAttempt:
    """An attempt in flight: what is stored besides its record."""

    context: Context
    estimate: ArmEstimate
    number: int
    """Of its record."""


@dataclass(slots=True, eq=False)
class _Member:
    node: Node
    number: int
    attempts: set[str] = field(default_factory=set)
    """Tasks in flight on it."""


class Fleet:
    """Nodes by id, arms by kind, attempts by task. Records are arrays once `use_compiled` was called."""

    def __init__(self) -> None:
        self.arrays = False
        self.nodes: Records = rows(NODE, FIRST_ROOM, arrays=False)
        self.attempts: Records = rows(ATTEMPT, FIRST_ROOM, arrays=False)
        self.arms: Records = []
        self.order: Integers = [[0] for _ in range(KINDS)]
        """[kinds] how many arms there are, then their numbers."""
        self.tables: dict[TaskKind, KindTable] = {}
        self.options = blank_options(0, arrays=self.arrays)
        self.in_flight: dict[str, OpenAttempt] = {}
        self._superseded: dict[tuple[str, str], OpenAttempt] = {}
        self._members: dict[str, _Member] = {}
        self._free_nodes: list[int] = list(range(FIRST_ROOM - 1, -1, -1))
        self._free_attempts: list[int] = list(range(FIRST_ROOM - 1, -1, -1))
        self._tasks = TaskNumbers()
        self._entries: dict[Callable[..., Any], Callable[..., Any]] = {}
        self.changed = False
        """Whether `refresh` is needed before the next decision."""

    def __len__(self) -> int:
        return len(self._members)

    def kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel in the form that fits the records. Until `refresh` it must get the same types of arguments."""
        if not self.arrays:
            return function
        if function not in self._entries:
            self._entries[function] = entry(function)
        return self._entries[function]

    def node(self, node_id: str) -> Node | None:
        """A live node by name."""
        member = self._members.get(node_id)
        return member.node if member else None

    def number(self, node_id: str) -> int | None:
        """Number of a live node."""
        member = self._members.get(node_id)
        return member.number if member else None

    def record(self, node_id: str) -> Record:
        """State of a live node."""
        return self.nodes[self._members[node_id].number]

    # ----------------------------------------------------------------------------------------------- arms

    def refresh(self, policy: object, *, arrays: bool) -> None:
        """Rebuild the arms after the fleet, the policy or the form of the records changed."""
        self._entries.clear()  # the state of another policy has another type
        members = [(member.number, member.node) for member in self._members.values()]
        if arrays != self.arrays:
            self.arrays = arrays
            self.nodes, self.attempts = in_form(self.nodes, arrays=arrays), in_form(self.attempts, arrays=arrays)
        self.arms, self.tables = arm_records(members, arrays=arrays)
        if isinstance(policy, KernelPolicy):
            self._number_arms(policy)
            policy.make_room(nodes=len(self.nodes), tasks=self._tasks.room)
            policy.use(arrays=arrays)
        most = max((len(table.arms) for table in self.tables.values()), default=0)
        self.order = integers(KINDS, most + 1, arrays=False)
        for number, kind in enumerate(TaskKind):
            if table := self.tables.get(kind):
                count = len(table.arms)
                self.order[number][: count + 1] = [count, *range(table.first, table.first + count)]
        self.order = np.array(self.order) if arrays else self.order
        self.options = blank_options(most, arrays=self.arrays)
        self.changed = False

    @property
    def arm_count(self) -> int:
        """Arms of all live nodes."""
        return sum(len(member.node.arms) for member in self._members.values())

    def _number_arms(self, policy: KernelPolicy) -> None:
        for table in self.tables.values():
            slots, engines = policy.number_arms(table.shown)
            for row, (slot, engine) in enumerate(zip(slots, engines, strict=True)):
                put(self.arms[table.first + row], {"slot": slot, "engine": engine})

    # ----------------------------------------------------------------------------------------------- nodes

    def report(self, node: Node, status: NodeStatus) -> list[str]:
        """Process a heartbeat. Returns the tasks lost because the node was restarted since the last one."""
        member = self._members.get(node.node_id)
        lost: list[str] = []
        if member is not None and member.node.incarnation != node.incarnation:
            lost, member = self.lose(node.node_id), None
        if member is None:
            member = self._members[node.node_id] = _Member(node, self._take_node())
            self.changed = True
        elif member.node is not node and member.node != node:
            member.node = node
            self.changed = True
        self.kernel(heartbeat.note_status)(
            self.nodes[member.number],
            float(status.running + status.queued),
            float(max(status.capacity, 1)),
            float(status.kv_used),
            bool(status.draining),
        )
        return lost

    def lose(self, node_id: str) -> list[str]:
        """Forget a node. Returns its tasks, which are no longer in flight."""
        member = self._members.get(node_id)
        if member is None:
            return []
        lost = sorted(member.attempts)
        for task_id in lost:
            self.close(self._release(task_id))
        del self._members[node_id]
        self.kernel(heartbeat.leave)(self.nodes[member.number])
        self._free_nodes.append(member.number)
        self.changed = True
        return lost

    def set_link(self, node_id: str, link: Link) -> None:
        """Take a measured link; ignored for a node that is not here."""
        member = self._members.get(node_id)
        if member is not None:
            self.kernel(heartbeat.measured_link)(
                self.nodes[member.number], float(link.up_bytes_per_s), float(link.rtt_s), float(link.joules_per_byte)
            )

    def mark_full(self, node_id: str) -> None:
        """The node turned a task away: count it as full until its next heartbeat."""
        member = self._members.get(node_id)
        if member is not None:
            self.kernel(reserve.mark_full)(self.nodes[member.number])

    def _take_node(self) -> int:
        if not self._free_nodes:
            room = len(self.nodes)
            self.nodes = with_room(self.nodes, NODE, 2 * room)
            self._free_nodes = list(range(2 * room - 1, room - 1, -1))
        number = self._free_nodes.pop()
        self.kernel(heartbeat.join)(self.nodes[number])
        return number

    # ----------------------------------------------------------------------------------------------- attempts

    def task_number(self, context: Context, grace_s: float) -> tuple[int, int]:
        """Number and serial of a task that is to be placed."""
        expires_at_s = context.now_s + max(context.remaining_s, 0.0) + grace_s
        return self._tasks.of(context.task.task_id, expires_at_s)

    @property
    def task_room(self) -> int:
        """Task numbers are below this."""
        return self._tasks.room

    def open_attempt(self, context: Context, estimate: ArmEstimate, demand: Record, grace_s: float) -> None:
        """Count a task against the node that was chosen for it, from now until `end`."""
        if not self._free_attempts:
            room = len(self.attempts)
            self.attempts = with_room(self.attempts, ATTEMPT, 2 * room)
            self._free_attempts = list(range(2 * room - 1, room - 1, -1))
        number, member = self._free_attempts.pop(), self._members[estimate.node_id]
        attempt = self.attempts[number]
        self.kernel(reserve.start_attempt)(attempt, demand, self.options, float(grace_s))
        self.kernel(reserve.reserve)(self.nodes[member.number], attempt)
        task_id = context.task.task_id
        self.in_flight[task_id] = OpenAttempt(context, estimate, number)
        member.attempts.add(task_id)

    def supersede(self, task_id: str) -> OpenAttempt | None:
        """Release the slot of a task that is placed again; keep the attempt, because its outcome may still come."""
        attempt = self._release(task_id)
        if attempt is not None:
            self._superseded[task_id, attempt.estimate.arm_id] = attempt
        return attempt

    def end(self, outcome: Outcome) -> OpenAttempt | None:
        """An attempt ended: release its slot and write its outcome. Returns it, None if nothing is known of it.

        `close` must follow.
        """
        attempt = self.in_flight.get(outcome.task_id)
        if attempt is not None and attempt.estimate.arm_id == outcome.arm_id:
            self._release(outcome.task_id)
        else:
            attempt = self._superseded.pop((outcome.task_id, outcome.arm_id), None)
        if attempt is not None:
            fill_outcome(self.attempts[attempt.number], outcome)
        return attempt

    def close(self, attempt: OpenAttempt | None) -> None:
        """Free the record of an attempt that is not needed any more."""
        if attempt is not None:
            self._free_attempts.append(attempt.number)

    def observe_link(self, attempt: OpenAttempt) -> None:
        """Improve the guess of a link that is not measured."""
        member = self._members.get(attempt.estimate.node_id)
        if member is None:
            return
        node = self.nodes[member.number]
        if get(node, "guessing"):
            self.kernel(guess_link)(node, self.attempts[attempt.number])

    def expire(self, now_s: float) -> None:
        """Drop attempts whose deadline and grace time have passed without a report."""
        for task_id in [task_id for task_id, attempt in self.in_flight.items() if self._expired(attempt, now_s)]:
            self.close(self._release(task_id))
        for key in [key for key, attempt in self._superseded.items() if self._expired(attempt, now_s)]:
            self.close(self._superseded.pop(key))
        self._tasks.expire(now_s)

    def _expired(self, attempt: OpenAttempt, now_s: float) -> bool:
        return bool(get(self.attempts[attempt.number], "expires_at_s") <= now_s)

    def _release(self, task_id: str) -> OpenAttempt | None:
        attempt = self.in_flight.pop(task_id, None)
        if attempt is not None:
            member = self._members[attempt.estimate.node_id]
            member.attempts.discard(task_id)
            self.kernel(reserve.release)(self.nodes[member.number], self.attempts[attempt.number])
        return attempt


class TaskNumbers:
    """Small numbers for tasks under way.

    A task keeps its number until it can have no other attempt, so that a policy can tell that two attempts are of one
    task. Then the number is used again.
    """

    def __init__(self) -> None:
        self.room = FIRST_ROOM
        self._tasks: dict[str, _TaskNumber] = {}
        self._free = list(range(FIRST_ROOM - 1, -1, -1))
        self._serial = 0

    def of(self, task_id: str, expires_at_s: float) -> tuple[int, int]:
        """Number and serial of a task; both are kept until then at least."""
        task = self._tasks.get(task_id)
        if task is None:
            if not self._free:
                self._free = list(range(2 * self.room - 1, self.room - 1, -1))
                self.room *= 2
            self._serial += 1
            task = self._tasks[task_id] = _TaskNumber(self._free.pop(), self._serial)
        task.expires_at_s = expires_at_s
        return task.number, task.serial

    def expire(self, now_s: float) -> None:
        """Release the numbers of tasks that are over."""
        for task_id in [task_id for task_id, task in self._tasks.items() if task.expires_at_s <= now_s]:
            self._free.append(self._tasks.pop(task_id).number)


@dataclass(slots=True)
class _TaskNumber:
    number: int
    serial: int
    expires_at_s: float = 0.0
