"""Events: the input of the scheduler core. `at_s` is the driver's clock in seconds; events come in its order."""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.node import Link, Node, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task


@dataclass(frozen=True, slots=True)
class TaskArrived:
    """A task needs an arm. `avoid` names nodes that just failed it; a later attempt replaces the one before."""

    at_s: float
    task: Task
    profile: TaskProfile
    attempt: int = 1
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node registered or sent a heartbeat."""

    at_s: float
    node: Node
    status: NodeStatus


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node's lease ran out or it left."""

    at_s: float
    node_id: str


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A node's link was measured; from now on this replaces the guess from outcomes."""

    at_s: float
    node_id: str
    link: Link


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A task was answered. Late or not, the whole answer was delivered."""

    at_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task ended in any other way; `outcome.status` names it."""

    at_s: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Put another policy in force; nothing in flight is lost."""

    at_s: float
    policy: str
    snapshot: bytes = b""
    """What it learned earlier; empty to start without."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Drops attempts whose end was never reported, and saves what was learned."""

    at_s: float
    save: bool = False
    """Save now, even if the last save was a short time ago."""


Event = TaskArrived | NodeReported | NodeLost | LinkChanged | TaskFinished | TaskFailed | PolicyChanged | Tick
