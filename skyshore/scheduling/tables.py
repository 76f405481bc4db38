"""Arms of the live fleet as columns, one table a kind; rebuilt only when the fleet changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skyshore.domain.node import Arm, Node, Tier
from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import ArmTable, Floats, Integers

UNKNOWN_PREFILL_TOKENS_PER_S = 200.0
UNKNOWN_DECODE_TOKENS_PER_S = 10.0
UNKNOWN_FRAME_S = 0.1
"""Speeds assumed of an arm that states none: slow enough that a measured arm is preferred."""


@dataclass(frozen=True, slots=True, eq=False)
class KindTable:
    """What policies see of a kind's arms, and beside it what the estimates need."""

    arms: tuple[Arm, ...]
    shown: ArmTable
    all_rows: Integers
    models: dict[str, Integers]
    """Rows of each model."""
    context_tokens: Floats
    """Infinite where the arm states no limit."""
    prefill_s_per_token: Floats
    decode_s_per_token: Floats
    frame_s: Floats
    stride: Floats
    bytes_per_frame: Floats
    busy_watts: Floats
    shortest_context_tokens: float
    lowest_quality: float


def build_table(kind: TaskKind, fleet: Sequence[tuple[int, Node]]) -> KindTable | None:
    """Table of all arms of `kind` in `fleet` (node number, node); None if there is none."""
    found = [(number, node, arm) for number, node in fleet for arm in node.arms if arm.kind is kind]
    if not found:
        return None
    arms = tuple(arm for _, _, arm in found)

    def column(of: Callable[[Arm], float]) -> Floats:
        return np.array([of(arm) for arm in arms], dtype=np.float64)

    models: dict[str, list[int]] = {}
    for row, arm in enumerate(arms):
        models.setdefault(arm.model, []).append(row)
    return KindTable(
        arms=arms,
        shown=ArmTable(
            kind=kind,
            arm_ids=tuple(arm.arm_id for arm in arms),
            node_ids=tuple(node.node_id for _, node, _ in found),
            node=np.array([number for number, _, _ in found], dtype=np.intp),
            is_cloud=np.array([node.tier is Tier.CLOUD for _, node, _ in found]),
            quality=column(lambda arm: arm.quality),
            slots=column(lambda arm: max(arm.slots, 1)),
        ),
        all_rows=np.arange(len(arms), dtype=np.intp),
        models={model: np.array(rows, dtype=np.intp) for model, rows in models.items()},
        context_tokens=column(lambda arm: arm.context_tokens or np.inf),
        prefill_s_per_token=column(lambda arm: 1.0 / (arm.prefill_tokens_per_s or UNKNOWN_PREFILL_TOKENS_PER_S)),
        decode_s_per_token=column(lambda arm: 1.0 / (arm.decode_tokens_per_s or UNKNOWN_DECODE_TOKENS_PER_S)),
        frame_s=column(lambda arm: arm.frame_s or UNKNOWN_FRAME_S),
        stride=column(lambda arm: max(arm.frame_stride, 1)),
        bytes_per_frame=column(lambda arm: arm.bytes_per_frame),
        busy_watts=column(lambda arm: arm.busy_watts),
        shortest_context_tokens=min(arm.context_tokens or np.inf for arm in arms),
        lowest_quality=min(arm.quality for arm in arms),
    )
