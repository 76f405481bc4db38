"""What the scheduler wants done. The driver does it; nothing here has happened yet.

Placements and records are made when they are read: a simulation that keeps no decision log does not pay for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skyshore.domain.errors import SkyshoreError
from skyshore.domain.node import Arm, Node
from skyshore.domain.placement import DecisionRecord, Placement
from skyshore.policies.protocol import ArmEstimate, Arms, Context, Decision, FewArms
from skyshore.scheduling.logged_context import encode_context


class Choice(NamedTuple):
    """What a policy was shown and what it answered."""

    context: Context
    policy: str
    arms: Arms | FewArms | None = None
    """None when no arm could be shown."""
    decision: Decision | None = None

    def record(self, chosen: str, logged_arms: int) -> DecisionRecord:
        """For the decision log, with at most so many arms: with more, those of the best scores."""
        task, decision = self.context.task, self.decision
        listed = self._listed(logged_arms)
        arms, scores = self.arms, decision.scores if decision else None
        estimates = [] if arms is None else [arms.estimate(index) for index in listed]
        return DecisionRecord(
            task_id=task.task_id,
            decided_at_s=self.context.now_s,
            policy=self.policy,
            service_class=task.service_class,
            chosen=chosen,
            propensity=decision.propensity if decision else 0.0,
            arm_ids=tuple(estimate.arm_id for estimate in estimates),
            scores=() if scores is None else tuple(float(scores[index]) for index in listed),
            features=decision.features if decision else (),
            context=encode_context(self.context, estimates) if estimates else "",
        )

    def _listed(self, most: int) -> list[int]:
        """Indices of the arms to be logged."""
        if self.arms is None or self.decision is None:
            return []
        count, scores = len(self.arms.rows), self.decision.scores
        if count <= most:
            return list(range(count))
        if scores is None:
            return []
        best: list[int] = np.argpartition(scores, count - most)[-most:].tolist()
        return best


class Dispatch(NamedTuple):
    """Send the task to its arm. Room for it is already reserved."""

    choice: Choice
    arm: Arm
    node: Node
    estimate: ArmEstimate
    attempt: int
    logged_arms: int

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
        """The answer to whoever asked."""
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
        return self.choice.record(self.arm.arm_id, self.logged_arms)


class Reject(NamedTuple):
    """Tell the caller no."""

    choice: Choice
    error: SkyshoreError
    logged_arms: int

    @property
    def task_id(self) -> str:
        """Name of the task."""
        return self.choice.context.task.task_id

    @property
    def record(self) -> DecisionRecord:
        """For the decision log."""
        return self.choice.record("", self.logged_arms)


@dataclass(frozen=True, slots=True)
class Migrate:
    """The task's node is gone: whoever drives the task should ask for another placement, avoiding that node."""

    task_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class SaveState:
    """Keep what the policy learned."""

    policy: str
    snapshot: bytes


Action = Dispatch | Reject | Migrate | SaveState
