"""Where a simulated task goes: the live scheduler's own core, or a plain rule for checks against theory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from simulator.flight import Flight
from skyshore.domain.errors import Internal, QueueFull, SkyshoreError
from skyshore.domain.node import Arm, Link, Node, NodeStatus
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.placement import DecisionRecord
from skyshore.scheduling.actions import Action, Dispatch, Reject
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.events import LinkChanged, NodeLost, NodeReported, TaskArrived, TaskFailed, TaskFinished, Tick


class Dispatcher(Protocol):
    """The seam between the fleet and whoever decides."""

    @property
    def digest(self) -> str:
        """Fingerprint of all placements so far."""
        ...

    @property
    def slot_s(self) -> float:
        """Arrivals may be gathered this long before they are placed; 0 places each at once."""
        ...

    def place(self, now_s: float, flight: Flight, avoid: Sequence[str]) -> Arm | None:
        """Choose an arm; None when a later `tick` will. Raises SkyshoreError when there is none."""
        ...

    def ended(self, now_s: float, outcome: Outcome) -> None:
        """An attempt ended."""
        ...

    def reported(self, now_s: float, node: Node, status: NodeStatus) -> None:
        """A node's heartbeat."""
        ...

    def measured(self, now_s: float, node_id: str, link: Link) -> None:
        """A node's link turned out to be so."""
        ...

    def lost(self, now_s: float, node_id: str) -> None:
        """A node's lease ran out."""
        ...

    def tick(self, now_s: float) -> Sequence[tuple[str, Arm | SkyshoreError]]:
        """A second passed, or a slot. Returns what became of the tasks that waited for it, by name."""
        ...


class CoreDispatcher:
    """Drives `SchedulerCore` exactly as the live loop does. `digest` fingerprints every decision."""

    def __init__(self, core: SchedulerCore, on_decision: Callable[[DecisionRecord], None] | None = None) -> None:
        """`on_decision` is shown every decision, refusals too."""
        self.core, self.on_decision = core, on_decision
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hex SHA-256 over task, arm and propensity of all decisions so far."""
        return self._digest.hexdigest()

    @property
    def slot_s(self) -> float:
        """See `Dispatcher`."""
        return self.core.slot_s

    def place(self, now_s: float, flight: Flight, avoid: Sequence[str]) -> Arm | None:
        """See `Dispatcher`."""
        actions = self.core.handle(TaskArrived(now_s, flight.task, flight.profile, flight.attempt, tuple(avoid)))
        if not actions:
            return None
        answer = self._answer(actions[0])
        if isinstance(answer, SkyshoreError):
            raise answer
        return answer

    def ended(self, now_s: float, outcome: Outcome) -> None:
        """See `Dispatcher`."""
        kind = TaskFinished if outcome.status is OutcomeStatus.OK else TaskFailed
        self.core.handle(kind(now_s, outcome))

    def reported(self, now_s: float, node: Node, status: NodeStatus) -> None:
        """See `Dispatcher`."""
        self.core.handle(NodeReported(now_s, node, status))

    def measured(self, now_s: float, node_id: str, link: Link) -> None:
        """See `Dispatcher`."""
        self.core.handle(LinkChanged(now_s, node_id, link))

    def lost(self, now_s: float, node_id: str) -> None:
        """See `Dispatcher`."""
        self.core.handle(NodeLost(now_s, node_id))

    def tick(self, now_s: float) -> Sequence[tuple[str, Arm | SkyshoreError]]:
        """See `Dispatcher`."""
        actions = self.core.handle(Tick(now_s))
        return [(action.task_id, self._answer(action)) for action in actions if isinstance(action, Dispatch | Reject)]

    def _answer(self, action: Action) -> Arm | SkyshoreError:
        if isinstance(action, Dispatch):
            line = f"{action.task_id} {action.arm.arm_id} {action.propensity!r}\n"
            answer: Arm | SkyshoreError = action.arm
        elif isinstance(action, Reject):
            line, answer = f"{action.task_id}  0.0\n", action.error
        else:
            raise Internal(f"the core answered an arrival with {type(action).__name__}")
        self._digest.update(line.encode())
        if self.on_decision is not None:
            self.on_decision(action.record)
        return answer


def status_of(error: SkyshoreError) -> OutcomeStatus:
    """How a task ended that nobody took; the same as at the live gateway."""
    return OutcomeStatus.REJECTED if isinstance(error, QueueFull) else OutcomeStatus.FAILED
