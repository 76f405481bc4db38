"""Where a simulated task goes: the live scheduler's own core, or a plain rule for checks against theory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from simulator.flight import Flight
from skyshore.domain.errors import QueueFull, SkyshoreError
from skyshore.domain.node import Arm, Node, NodeStatus
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.placement import DecisionRecord
from skyshore.scheduling.actions import Action, Dispatch, Reject
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.events import NodeLost, NodeReported, TaskArrived, TaskFailed, TaskFinished, Tick


class Dispatcher(Protocol):
    """The seam between the fleet and whoever decides."""

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
        self._core, self._on_decision = core, on_decision
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hex SHA-256 over task, arm and propensity of all decisions so far."""
        return self._digest.hexdigest()

    @property
    def slot_s(self) -> float:
        """See `Dispatcher`."""
        return self._core.slot_s

    def place(self, now_s: float, flight: Flight, avoid: Sequence[str]) -> Arm | None:
        """See `Dispatcher`."""
        event = TaskArrived(now_s, flight.task, flight.profile, flight.attempt, tuple(avoid))
        for _, answer in self._answers(self._core.handle(event)):
            if isinstance(answer, SkyshoreError):
                raise answer
            return answer
        return None

    def ended(self, now_s: float, outcome: Outcome) -> None:
        """See `Dispatcher`."""
        kind = TaskFinished if outcome.status is OutcomeStatus.OK else TaskFailed
        self._core.handle(kind(now_s, outcome))

    def reported(self, now_s: float, node: Node, status: NodeStatus) -> None:
        """See `Dispatcher`."""
        self._core.handle(NodeReported(now_s, node, status))

    def lost(self, now_s: float, node_id: str) -> None:
        """See `Dispatcher`."""
        self._core.handle(NodeLost(now_s, node_id))

    def tick(self, now_s: float) -> Sequence[tuple[str, Arm | SkyshoreError]]:
        """See `Dispatcher`."""
        return list(self._answers(self._core.handle(Tick(now_s))))

    def _answers(self, actions: Sequence[Action]) -> Iterator[tuple[str, Arm | SkyshoreError]]:
        for action in actions:
            if isinstance(action, Dispatch):
                placement = action.placement
                self._show(action.record)
                self._note(placement.task_id, placement.arm.arm_id, placement.propensity)
                yield placement.task_id, placement.arm
            elif isinstance(action, Reject):
                self._show(action.record)
                self._note(action.task_id, "", 0.0)
                yield action.task_id, action.error

    def _show(self, record: DecisionRecord) -> None:
        if self._on_decision is not None:
            self._on_decision(record)

    def _note(self, task_id: str, arm_id: str, propensity: float) -> None:
        self._digest.update(f"{task_id} {arm_id} {propensity!r}\n".encode())


def status_of(error: SkyshoreError) -> OutcomeStatus:
    """How a task ended that nobody took; the same as at the live gateway."""
    return OutcomeStatus.REJECTED if isinstance(error, QueueFull) else OutcomeStatus.FAILED
