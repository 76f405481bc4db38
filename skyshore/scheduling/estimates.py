"""What a task would cost on each arm, from stated speeds, the measured link and the queue. Vectorised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import Arms, Context, Floats, Integers
from skyshore.scheduling.node_columns import (
    BACKLOG_S,
    CAPACITY,
    FOREIGN,
    JOULES_PER_BYTE,
    KV_USED,
    OWN,
    RATE,
    RESERVED,
    RTT_S,
    NodeColumns,
)
from skyshore.scheduling.tables import KindTable


def estimate_arms(table: KindTable, columns: NodeColumns, rows: Integers, context: Context) -> Arms:
    """Rows of `table` as `Arms` for one task.

    queue = (tasks ahead beyond the free slots) × (mean work of a task in flight) / slots: first come, first served
    with exponential residual work. Energy counts the arm as working for this task alone.
    """
    shown = table.shown
    whole = len(rows) == len(table.all_rows)

    def take(column: Floats) -> Floats:
        return column if whole else column[rows]

    node = shown.node if whole else shown.node[rows]
    now = columns.block.take(node, axis=1)
    service_s, up_bytes = _work(table, take, context)
    load, slots = now[OWN] + now[FOREIGN], take(shown.slots)
    queue_s = _queue_s(now, load, slots, service_s)
    transmission_s = now[RTT_S] + up_bytes / now[RATE]
    return Arms(
        table=shown,
        rows=rows,
        node=node,
        is_cloud=shown.is_cloud if whole else shown.is_cloud[rows],
        quality=take(shown.quality),
        slots=slots,
        transmission_s=transmission_s,
        queue_s=queue_s,
        service_s=service_s,
        latency_s=transmission_s + queue_s + service_s,
        joules=take(table.busy_watts) * service_s + now[JOULES_PER_BYTE] * up_bytes,
        up_bytes=up_bytes,
        load=load,
        capacity=now[CAPACITY],
        kv_used=now[KV_USED],
        up_bytes_per_s=now[RATE],
        reserved_bytes_per_s=now[RESERVED],
    )


def _queue_s(now: Floats, load: Floats, slots: Floats, service_s: Floats) -> Floats:
    """Seconds until a slot is free, per arm; a node with nobody's tasks but others' is taken to work on our kind."""
    ahead = load - slots + 1.0
    if ahead.max() <= 0:
        return np.zeros(len(load))
    own = now[OWN]
    mean_s = np.where(own > 0, now[BACKLOG_S] / np.maximum(own, 1.0), service_s)
    return np.maximum(ahead, 0.0) * mean_s / slots


def expected_queue_s(load: float, own: float, slots: float, backlog_s: float, service_s: float) -> float:
    """`_queue_s` of one arm, in plain numbers."""
    ahead = load - slots + 1.0
    if ahead <= 0:
        return 0.0
    return ahead * (backlog_s / own if own > 0 else service_s) / slots


def _work(table: KindTable, take: Callable[[Floats], Floats], context: Context) -> tuple[Floats, Floats]:
    """Seconds of computation and bytes to the node, per arm."""
    profile = context.profile
    if context.task.kind is TaskKind.LLM:
        service_s = profile.prompt_tokens * take(table.prefill_s_per_token)
        service_s = service_s + profile.expected_output_tokens * take(table.decode_s_per_token)
        return service_s, np.full(len(service_s), float(profile.input_bytes))
    frames = np.ceil(profile.frame_count / take(table.stride))
    per_frame = take(table.bytes_per_frame)
    as_sent = profile.input_bytes / max(profile.frame_count, 1)
    return frames * take(table.frame_s), frames * np.where(per_frame > 0, per_frame, as_sent)
