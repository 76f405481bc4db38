"""Arms of the live fleet as columns, one table a kind; rebuilt only when the fleet changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skyshore.domain.node import Arm, Node, Tier
from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import ArmTable, Floats, Integers
from skyshore.scheduling.node_columns import NodeState

UNKNOWN_PREFILL_TOKENS_PER_S = 200.0
UNKNOWN_DECODE_TOKENS_PER_S = 10.0
UNKNOWN_FRAME_S = 0.1
"""Speeds assumed of an arm that states none: slow enough that a measured arm is preferred."""


@dataclass(frozen=True, slots=True, eq=False)
class ArmRow:
    """One arm in plain numbers: what a row of `KindTable` says of it, and the state of its node."""

    row: int
    arm: Arm
    state: NodeState
    is_cloud: bool
    slots: float
    context_tokens: float
    prefill_s_per_token: float
    decode_s_per_token: float
    frame_s: float
    stride: float


@dataclass(frozen=True, slots=True, eq=False)
class KindTable:
    """What policies see of a kind's arms, and beside it what the estimates need."""

    arms: tuple[Arm, ...]
    rows: tuple[ArmRow, ...]
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


def build_table(kind: TaskKind, fleet: Sequence[tuple[NodeState, Node]]) -> KindTable | None:
    """Table of all arms of `kind` in `fleet`; None if there is none."""
    found = [(state, node, arm) for state, node in fleet for arm in node.arms if arm.kind is kind]
    if not found:
        return None
    arms = tuple(arm for _, _, arm in found)
    rows = tuple(_row(row, *entry) for row, entry in enumerate(found))

    def column(of: Callable[[Arm], float]) -> Floats:
        return np.array([of(arm) for arm in arms], dtype=np.float64)

    def known(of: Callable[[ArmRow], float]) -> Floats:
        return np.array([of(row) for row in rows], dtype=np.float64)

    models: dict[str, list[int]] = {}
    for row, arm in enumerate(arms):
        models.setdefault(arm.model, []).append(row)
    return KindTable(
        arms=arms,
        rows=rows,
        shown=ArmTable(
            kind=kind,
            arm_ids=tuple(arm.arm_id for arm in arms),
            node_ids=tuple(node.node_id for _, node, _ in found),
            node=np.array([state.number for state, _, _ in found], dtype=np.intp),
            is_cloud=np.array([row.is_cloud for row in rows]),
            quality=column(lambda arm: arm.quality),
            slots=known(lambda row: row.slots),
            engines=tuple(f"{node.node_id}/{arm.model}" for _, node, arm in found),
        ),
        all_rows=np.arange(len(arms), dtype=np.intp),
        models={model: np.array(rows, dtype=np.intp) for model, rows in models.items()},
        context_tokens=known(lambda row: row.context_tokens),
        prefill_s_per_token=known(lambda row: row.prefill_s_per_token),
        decode_s_per_token=known(lambda row: row.decode_s_per_token),
        frame_s=known(lambda row: row.frame_s),
        stride=known(lambda row: row.stride),
        bytes_per_frame=column(lambda arm: arm.bytes_per_frame),
        busy_watts=column(lambda arm: arm.busy_watts),
        shortest_context_tokens=min(row.context_tokens for row in rows),
        lowest_quality=min(arm.quality for arm in arms),
    )


def _row(row: int, state: NodeState, node: Node, arm: Arm) -> ArmRow:
    return ArmRow(
        row=row,
        arm=arm,
        state=state,
        is_cloud=node.tier is Tier.CLOUD,
        slots=float(max(arm.slots, 1)),
        context_tokens=float(arm.context_tokens or np.inf),
        prefill_s_per_token=1.0 / (arm.prefill_tokens_per_s or UNKNOWN_PREFILL_TOKENS_PER_S),
        decode_s_per_token=1.0 / (arm.decode_tokens_per_s or UNKNOWN_DECODE_TOKENS_PER_S),
        frame_s=arm.frame_s or UNKNOWN_FRAME_S,
        stride=float(max(arm.frame_stride, 1)),
    )
