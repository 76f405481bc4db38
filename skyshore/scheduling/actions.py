"""What the scheduler wants done. The driver does it; nothing here has happened yet."""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.errors import SkyshoreError
from skyshore.domain.placement import DecisionRecord, Placement


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the task to its arm. Room for it is already reserved."""

    placement: Placement
    record: DecisionRecord


@dataclass(frozen=True, slots=True, eq=False)
class Reject:
    """Tell the caller no."""

    task_id: str
    error: SkyshoreError
    record: DecisionRecord


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
