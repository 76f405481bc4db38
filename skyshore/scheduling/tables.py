"""Arms of the live fleet as records and as tables for policies and messages; rebuilt when the fleet changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from skyshore.domain.node import Arm, Node, Tier
from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import ESTIMATED, ArmEstimate, Arms, ArmTable
from skyshore.rules.records import ARM, NONE, Options, Records, column, records_of

SHOWN = ("row", "is_cloud", *ESTIMATED)
"""Fields of an ESTIMATE that `KindTable.estimate` takes."""
UNKNOWN_PREFILL_TOKENS_PER_S = 200.0
UNKNOWN_DECODE_TOKENS_PER_S = 10.0
UNKNOWN_FRAME_S = 0.1
"""Speeds assumed of an arm that states none: slow enough that a measured arm is preferred."""


@dataclass(frozen=True, slots=True, eq=False)
class KindTable:
    """All arms of one kind."""

    first: int
    """Number of the first arm; the others follow."""
    arms: tuple[Arm, ...]
    shown: ArmTable
    models: dict[str, int]
    """Numbers of the models, as records have them."""

    def model(self, name: str) -> int:
        """The number of a model that a task asks for; NONE for any, and one that no arm has for an unknown one."""
        return self.models.get(name, len(self.models)) if name else NONE

    def estimate(self, row: int, is_cloud: int, *numbers: float) -> ArmEstimate:
        """An estimate as policies and logs have it, from the fields `SHOWN` of its record."""
        return ArmEstimate(self.shown.arm_ids[row], self.shown.node_ids[row], bool(is_cloud), *numbers)

    def options(self, options: Options, count: int) -> Arms:
        """The arms of a decision as columns. They are views of the records, if those are arrays: copy to keep them."""
        estimates = options.estimates
        columns = {name: column(estimates, name, count) for name in (*ESTIMATED, "latency_s")}
        return Arms(
            table=self.shown,
            rows=column(estimates, "row", count),
            node=column(estimates, "node", count),
            is_cloud=column(estimates, "is_cloud", count) > 0,
            **columns,
        )


def arm_records(fleet: Sequence[tuple[int, Node]], *, arrays: bool) -> tuple[Records, dict[TaskKind, KindTable]]:
    """Records of all arms, kind by kind, and the table of each kind that some node serves. `fleet`: number and node."""
    found = [
        (kind, number, node, arm)
        for kind in TaskKind
        for number, node in fleet
        for arm in node.arms
        if arm.kind is kind
    ]
    tables: dict[TaskKind, KindTable] = {}
    values: list[tuple[float | int, ...]] = []
    for kind in TaskKind:
        of_kind = [(number, node, arm) for each, number, node, arm in found if each is kind]
        if of_kind:
            table = tables[kind] = _table(kind, len(values), of_kind)
            values += [_values(kind, table, number, node, arm) for number, node, arm in of_kind]
    return records_of(ARM, values, arrays=arrays), tables


def _table(kind: TaskKind, first: int, found: Iterable[tuple[int, Node, Arm]]) -> KindTable:
    numbers, nodes, arms = zip(*found, strict=True)
    return KindTable(
        first,
        arms,
        ArmTable(
            kind=kind,
            arm_ids=tuple(arm.arm_id for arm in arms),
            node_ids=tuple(node.node_id for node in nodes),
            node=np.array(numbers, dtype=np.intp),
            is_cloud=np.array([node.tier is Tier.CLOUD for node in nodes]),
            quality=np.array([arm.quality for arm in arms], dtype=np.float64),
            slots=np.array([float(max(arm.slots, 1)) for arm in arms]),
            engines=tuple(f"{node.node_id}/{arm.model}" for node, arm in zip(nodes, arms, strict=True)),
        ),
        {model: number for number, model in enumerate(dict.fromkeys(arm.model for arm in arms))},
    )


def _values(kind: TaskKind, table: KindTable, number: int, node: Node, arm: Arm) -> tuple[float | int, ...]:
    """The fields of ARM, in order."""
    return (
        arm.quality,
        arm.busy_watts,
        float(arm.context_tokens or math.inf),
        1.0 / (arm.prefill_tokens_per_s or UNKNOWN_PREFILL_TOKENS_PER_S),
        1.0 / (arm.decode_tokens_per_s or UNKNOWN_DECODE_TOKENS_PER_S),
        arm.frame_s or UNKNOWN_FRAME_S,
        float(max(arm.frame_stride, 1)),
        arm.bytes_per_frame,
        float(max(arm.slots, 1)),
        number,
        list(TaskKind).index(kind),
        table.models[arm.model],
        int(node.tier is Tier.CLOUD),
        0,
        0,
    )
