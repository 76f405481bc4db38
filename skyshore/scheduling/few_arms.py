"""A handful of arms for one task, in plain numbers: `eligibility` and `estimates` without numpy, equal to the bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import ArmEstimate, Arms, ArmTable, Context
from skyshore.scheduling.estimates import estimate_arms, expected_queue_s
from skyshore.scheduling.node_columns import NodeColumns
from skyshore.scheduling.tables import ArmRow, KindTable

FEW = 20
"""Up to so many arms of a kind, plain numbers are faster than columns."""


def capable_few(table: KindTable, context: Context) -> Sequence[ArmRow]:
    """Rows that could ever serve the task: model, context length and quality."""
    task, profile = context.task, context.profile
    rows: Sequence[ArmRow] = table.rows
    if task.model:
        rows = [row for row in rows if row.arm.model == task.model]
    tokens = profile.prompt_tokens + profile.expected_output_tokens
    if tokens > table.shortest_context_tokens:
        rows = [row for row in rows if row.context_tokens >= tokens]
    if task.min_quality > table.lowest_quality:
        rows = [row for row in rows if row.arm.quality >= task.min_quality]
    return rows


def open_few(rows: Sequence[ArmRow], avoid: tuple[str, ...]) -> list[ArmRow]:
    """Those of `rows` whose node has room, is not draining and is not to be avoided."""
    if avoid:
        return [row for row in rows if row.state.open and row.arm.node_id not in avoid]
    return [row for row in rows if row.state.open]


class EstimatedFew:
    """`FewArms` of the live fleet, as of now: read it before anything is reserved."""

    __slots__ = ("_columns", "_context", "_estimates", "_rows", "_table")

    def __init__(self, table: KindTable, columns: NodeColumns, rows: Sequence[ArmRow], context: Context) -> None:
        self._table, self._columns, self._rows, self._context = table, columns, rows, context
        self._estimates: list[ArmEstimate] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def table(self) -> ArmTable:
        """See `FewArms`."""
        return self._table.shown

    @property
    def rows(self) -> list[int]:
        """See `FewArms`."""
        return [row.row for row in self._rows]

    @property
    def node(self) -> list[int]:
        """See `FewArms`."""
        return [row.state.number for row in self._rows]

    @property
    def load(self) -> list[float]:
        """See `FewArms`."""
        return [row.state.own + row.state.foreign for row in self._rows]

    @property
    def capacity(self) -> list[float]:
        """See `FewArms`."""
        return [row.state.capacity for row in self._rows]

    @property
    def estimates(self) -> list[ArmEstimate]:
        """See `FewArms`."""
        if self._estimates is None:
            self._estimates = estimate_rows(self._rows, self._context)
        return self._estimates

    def estimate(self, index: int) -> ArmEstimate:
        """See `FewArms`."""
        return self._estimates[index] if self._estimates else estimate_rows((self._rows[index],), self._context)[0]

    def arms(self) -> Arms:
        """See `FewArms`."""
        whole = len(self._rows) == len(self._table.rows)
        rows = self._table.all_rows if whole else self._table.all_rows[self.rows]
        return estimate_arms(self._table, self._columns, rows, self._context)


def estimate_rows(rows: Sequence[ArmRow], context: Context) -> list[ArmEstimate]:
    """Rows of `estimates.estimate_arms`, whose words hold here too."""
    profile, llm = context.profile, context.task.kind is TaskKind.LLM
    prompt_tokens, output_tokens = profile.prompt_tokens, profile.expected_output_tokens
    frame_count, input_bytes = profile.frame_count, float(profile.input_bytes)
    frame_as_sent = profile.input_bytes / (frame_count or 1)
    estimates = []
    for row in rows:
        arm, state = row.arm, row.state
        if llm:
            service_s = prompt_tokens * row.prefill_s_per_token + output_tokens * row.decode_s_per_token
            up_bytes = input_bytes
        else:
            frames = math.ceil(frame_count / row.stride)
            service_s = frames * row.frame_s
            up_bytes = frames * (arm.bytes_per_frame if arm.bytes_per_frame > 0 else frame_as_sent)
        own, slots, rate = state.own, row.slots, state.bytes_per_s
        load = own + state.foreign
        queue_s = expected_queue_s(load, own, slots, state.backlog_s, service_s)
        estimates.append(
            ArmEstimate(
                arm.arm_id,
                arm.node_id,
                row.is_cloud,
                arm.quality,
                slots,
                state.rtt_s + up_bytes / rate,
                queue_s,
                service_s,
                arm.busy_watts * service_s + state.joules_per_byte * up_bytes,
                up_bytes,
                load,
                state.capacity,
                state.kv_used,
                rate,
                state.reserved_bytes_per_s,
            )
        )
    return estimates
