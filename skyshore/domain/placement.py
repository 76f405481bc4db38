"""The scheduler's answer: which arm runs a task, and with which probability it was chosen."""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.node import Arm, Tier


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one task runs. `propensity` is the probability with which the policy chose this arm."""

    task_id: str
    arm: Arm
    tier: Tier
    address: str
    policy: str
    propensity: float = 1.0
    decided_at_s: float = 0.0
    estimated_latency_s: float = 0.0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One line of the decision log: enough to explain, replay and evaluate a choice off-policy."""

    task_id: str
    decided_at_s: float
    policy: str
    service_class: str
    chosen: str
    propensity: float
    arm_ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    features: tuple[float, ...] = ()
    context: str = ""
    """What the policy was shown, the task and a row for each of `arm_ids` (see `scheduling.logged_context`)."""
