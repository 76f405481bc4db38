"""The interface of every policy: its input (`Context`, `Arms`), its `Decision`, and the `Feedback` it learns from.

A policy is pure: it reads no clock and draws only from the generator it was built with. The live scheduler and the
simulator call the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.outcome import Outcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]


# Objects made for every decision are named tuples: they are frozen too, and creation takes a third of the time.


class Context(NamedTuple):
    """The task to be placed. The payload is never here."""

    now_s: float
    task: Task
    profile: TaskProfile
    waited_s: float = 0.0
    """Seconds of the deadline that passed before this decision (a slot, an earlier attempt)."""

    @property
    def remaining_s(self) -> float:
        """Seconds left until the deadline."""
        return self.task.deadline_s - self.waited_s


@dataclass(frozen=True, slots=True, eq=False)
class ArmTable:
    """All arms of one kind in the live fleet: the columns that stay as they are until the fleet changes.

    Until then policies get the same object, so they may cache what they compute from it, and compare with `is`.
    """

    kind: TaskKind
    arm_ids: tuple[str, ...]
    node_ids: tuple[str, ...]
    """Node of each arm."""
    node: Integers
    """Number of that node; arms of one node share it, and with it load and capacity."""
    is_cloud: Booleans
    quality: Floats
    slots: Floats
    engines: tuple[str, ...] = ()
    """Name of the engine that serves each arm: arms of one model on one node share it, and with it a queue. Empty where
    each arm has its own."""


@dataclass(slots=True, eq=False)
class Arms:
    """The arms that may take a task now, one row each; every array has `len(arms)` entries.

    Not included: arms of another kind or model, with too short a context or too low a quality, and arms on nodes that
    are draining, full or to be avoided. Estimates are for one task alone, plus the queue before it. Learning policies
    correct them.
    """

    table: ArmTable
    rows: Integers
    """Row of each arm in `table`, ascending."""
    node: Integers
    is_cloud: Booleans
    quality: Floats
    slots: Floats
    """Tasks the arm serves at once before they queue."""
    transmission_s: Floats
    """Round trip plus bytes over the measured link."""
    queue_s: Floats
    service_s: Floats
    latency_s: Floats
    """Sum of the three above."""
    joules: Floats
    """Transmission plus computation above idle."""
    up_bytes: Floats
    load: Floats
    """Tasks on the node, running, queued or on their way."""
    capacity: Floats
    """Tasks the node admits."""
    kv_used: Floats
    """Share of the node's KV memory in use."""
    up_bytes_per_s: Floats
    """Measured rate of the link; infinite where unknown."""
    reserved_bytes_per_s: Floats
    """Rate that tasks already placed need to keep their deadlines."""

    def __len__(self) -> int:
        return len(self.rows)

    def copy(self) -> Arms:
        """A copy to keep after this decision; the arrays themselves may be views of records that change."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        table = columns.pop("table")
        return Arms(table=table, **{name: values.copy() for name, values in columns.items()})

    def arm_id(self, index: int) -> str:
        """Name of the arm in row `index`."""
        return self.table.arm_ids[int(self.rows[index])]

    def estimate(self, index: int) -> ArmEstimate:
        """Row `index` as plain numbers, to be kept until the task ends."""
        row = int(self.rows[index])
        return ArmEstimate(
            arm_id=self.table.arm_ids[row],
            node_id=self.table.node_ids[row],
            is_cloud=bool(self.is_cloud[index]),
            quality=float(self.quality[index]),
            slots=float(self.slots[index]),
            transmission_s=float(self.transmission_s[index]),
            queue_s=float(self.queue_s[index]),
            service_s=float(self.service_s[index]),
            joules=float(self.joules[index]),
            up_bytes=float(self.up_bytes[index]),
            load=float(self.load[index]),
            capacity=float(self.capacity[index]),
            kv_used=float(self.kv_used[index]),
            up_bytes_per_s=float(self.up_bytes_per_s[index]),
            reserved_bytes_per_s=float(self.reserved_bytes_per_s[index]),
        )


class ArmEstimate(NamedTuple):
    """One row of `Arms`: the estimate of the chosen arm at the time of the decision."""

    arm_id: str
    node_id: str
    is_cloud: bool
    quality: float
    slots: float
    transmission_s: float
    queue_s: float
    service_s: float
    joules: float
    up_bytes: float
    load: float
    capacity: float
    kv_used: float
    up_bytes_per_s: float
    reserved_bytes_per_s: float

    @property
    def latency_s(self) -> float:
        """Transmission, queue and service together."""
        return self.transmission_s + self.queue_s + self.service_s


ESTIMATED = ArmEstimate._fields[3:]
"""The numbers of an `ArmEstimate`; the records of the kernels use the same names."""


@dataclass(slots=True, eq=False)
class Decision:
    """The answer: a row of `Arms`, or a refusal. Not frozen, because creation would take twice as long."""

    index: int
    """Row chosen; `REFUSED` for none."""
    propensity: float = 1.0
    """Probability with which this policy chooses this row in this context."""
    scores: Floats | list[float] | None = None
    """Score of each row, larger is better; None if the policy scores nothing."""
    features: tuple[float, ...] = ()
    """Figures behind the decision, for the decision log."""
    reason: str = ""
    """Why it refused."""
    transient: bool = False
    """A refusal that may be different in a second."""


REFUSED = -1


class Feedback(NamedTuple):
    """The outcome of a decision. It may arrive late and out of order; all figures in `outcome` are measured."""

    now_s: float
    context: Context
    arm: ArmEstimate
    outcome: Outcome
    reward: float
    """Common reward, see `skyshore.rules.reward`."""


class Policy(Protocol):
    """Chooses arms and learns from the outcomes."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Choose among at least one arm."""
        ...

    def update(self, feedback: Feedback) -> None:
        """Learn from one finished task. A subclass that leaves this out learns nothing."""
        return


@runtime_checkable
class SavedPolicy(Protocol):
    """A policy whose learned state can be saved and restored."""

    def snapshot(self) -> bytes:
        """Everything learned, for `restore`; empty if nothing was learned."""
        ...

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot of the same policy. Raises ValueError for an unreadable one."""
        ...


@runtime_checkable
class SlottedPolicy(Protocol):
    """A policy that places the arrivals of a slot together, nearest deadline first."""

    slot_s: float
    """Arrivals are gathered this long; 0 places each at once."""

    def plan(self, contexts: Sequence[Context], options: Sequence[Arms]) -> None:
        """Look at all arrivals of a slot before `select` is asked for each in turn; `options` as of now."""
        ...


def slot_s(policy: Policy) -> float:
    """Seconds for which a policy gathers arrivals; 0 for one that places each at once."""
    return float(getattr(policy, "slot_s", 0.0))
