"""Actions: what the scheduler core tells its driver to do. Nothing in an action has happened yet.

Placements and records are made when they are read: a simulation that keeps no decision log does not pay for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skyshore.domain.errors import SkyshoreError
from skyshore.domain.node import Arm, Node
from skyshore.domain.placement import DecisionRecord, Placement
from skyshore.policies.protocol import ArmEstimate, Context, Decision
from skyshore.rules.records import Options, kept
from skyshore.scheduling.logged_context import encode_context
from skyshore.scheduling.tables import SHOWN, KindTable

LOGGED_ARMS = 32
"""Arms listed in a decision record, unless set otherwise."""


class ShownArms(NamedTuple):
    """The arms that the record of a decision lists: all, or those of the best scores if there are many."""

    table: KindTable | None = None
    values: Callable[[], list[tuple[Any, ...]]] = list
    """The fields `SHOWN` of each estimate, as they were at the decision."""
    scores: tuple[float, ...] = ()

    @property
    def estimates(self) -> tuple[ArmEstimate, ...]:
        """What the task would have cost on each."""
        return tuple(self.table.estimate(*values) for values in self.values()) if self.table else ()


def shown_arms(table: KindTable, options: Options, count: int, decision: Decision, most: int) -> ShownArms:
    """The arms to list of a decision, at most `most`."""
    listed: Sequence[int] = range(count)
    if count > most:
        if decision.scores is None:
            return ShownArms()
        listed = np.argpartition(decision.scores, count - most)[-most:].tolist()
    scores = () if decision.scores is None else tuple(np.asarray(decision.scores)[listed].tolist())
    return ShownArms(table, kept(options.estimates, listed, SHOWN), scores)


class Choice(NamedTuple):
    """What a policy was shown and what it answered."""

    context: Context
    policy: str
    decision: Decision | None = None
    """None when there was no arm to choose."""
    shown: ShownArms = ShownArms()

    def record(self, chosen: str) -> DecisionRecord:
        """For the decision log."""
        task, decision, estimates = self.context.task, self.decision, self.shown.estimates
        return DecisionRecord(
            task_id=task.task_id,
            decided_at_s=self.context.now_s,
            policy=self.policy,
            service_class=task.service_class,
            chosen=chosen,
            propensity=decision.propensity if decision else 0.0,
            arm_ids=tuple(estimate.arm_id for estimate in estimates),
            scores=self.shown.scores,
            features=decision.features if decision else (),
            context=encode_context(self.context, estimates) if estimates else "",
        )


class Dispatch(NamedTuple):
    """Send the task to its arm. Its capacity is already reserved."""

    choice: Choice
    arm: Arm
    node: Node
    estimate: ArmEstimate
    attempt: int

    @property
    def task_id(self) -> str:
        """Name of the task."""
        return self.choice.context.task.task_id

    @property
    def propensity(self) -> float:
        """Probability with which the policy chooses this arm."""
        assert self.choice.decision is not None, "nothing is dispatched undecided"
        return self.choice.decision.propensity

    @property
    def placement(self) -> Placement:
        """The answer to the caller."""
        return Placement(
            task_id=self.task_id,
            arm=self.arm,
            tier=self.node.tier,
            address=self.node.address,
            policy=self.choice.policy,
            propensity=self.propensity,
            decided_at_s=self.choice.context.now_s,
            estimated_latency_s=self.estimate.latency_s,
            attempt=self.attempt,
        )

    @property
    def record(self) -> DecisionRecord:
        """For the decision log."""
        return self.choice.record(self.arm.arm_id)


class Reject(NamedTuple):
    """Refuse the task, with an error for the caller."""

    choice: Choice
    error: SkyshoreError

    @property
    def task_id(self) -> str:
        """Name of the task."""
        return self.choice.context.task.task_id

    @property
    def record(self) -> DecisionRecord:
        """For the decision log."""
        return self.choice.record("")


@dataclass(frozen=True, slots=True)
class Migrate:
    """The task's node is gone: its caller should ask for another placement and avoid that node."""

    task_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class SaveState:
    """Store what the policy learned."""

    policy: str
    snapshot: bytes


Action = Dispatch | Reject | Migrate | SaveState
