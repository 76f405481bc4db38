"""Which arms may take a task at all, and the error to give when none may."""

from __future__ import annotations

import numpy as np

from skyshore.domain.errors import NodeUnavailable, NoFeasibleArm, QueueFull, SkyshoreError
from skyshore.policies.protocol import Booleans, Context, Integers
from skyshore.scheduling.fleet import Fleet
from skyshore.scheduling.node_columns import BACKLOG_S, CAPACITY, FOREIGN, OWN
from skyshore.scheduling.tables import KindTable

FLEET_RETRY_S = 2.0
"""Advised wait when nodes are missing: two heartbeats."""


def capable_rows(table: KindTable, context: Context) -> Integers:
    """Rows that could ever serve the task: model, context length and quality."""
    task, profile = context.task, context.profile
    rows = table.all_rows
    if task.model:
        rows = table.models.get(task.model, rows[:0])
    tokens = profile.prompt_tokens + profile.expected_output_tokens
    mask: Booleans | None = None
    if tokens > table.shortest_context_tokens:
        mask = table.context_tokens[rows] >= tokens
    if task.min_quality > table.lowest_quality:
        good = table.shown.quality[rows] >= task.min_quality
        mask = good if mask is None else mask & good
    return rows if mask is None or mask.all() else rows[mask]


def open_rows(fleet: Fleet, table: KindTable, rows: Integers, avoid: tuple[str, ...]) -> Integers:
    """Those of `rows` whose node has room, is not draining and is not to be avoided."""
    node = table.shown.node
    mask = fleet.columns.open[node if len(rows) == len(node) else node[rows]]
    if avoid:
        mask &= ~np.isin(node[rows], fleet.numbers(avoid))
    return rows if mask.all() else rows[mask]


def why_incapable(fleet: Fleet, table: KindTable | None, context: Context) -> SkyshoreError:
    """The error for a task that no arm could ever serve."""
    task, profile = context.task, context.profile
    if not len(fleet):
        return NodeUnavailable("no node is alive; start one and ask again", retry_after_s=FLEET_RETRY_S)
    if table is None:
        return NoFeasibleArm(f"no live node serves '{task.kind.value}'; start one that does", param="kind")
    if task.model and task.model not in table.models:
        offered = ", ".join(sorted(table.models))
        return NoFeasibleArm(f"no live node runs model '{task.model}'; running are {offered}", param="model")
    rows = table.models[task.model] if task.model else table.all_rows
    best = float(table.shown.quality[rows].max())
    if best < task.min_quality:
        return NoFeasibleArm(
            f"quality {task.min_quality} is asked for, the best arm gives {best:.3f}", param="min_quality"
        )
    longest = float(table.context_tokens[rows].max())
    tokens = profile.prompt_tokens + profile.expected_output_tokens
    if longest < tokens:
        return NoFeasibleArm(f"{tokens:.0f} tokens are needed, the longest context is {longest:.0f}", param="prompt")
    return NoFeasibleArm("no arm has both the quality and the context asked for; lower one", param="min_quality")


def why_closed(fleet: Fleet, table: KindTable, rows: Integers, avoid: tuple[str, ...]) -> SkyshoreError:
    """The error for a task whose capable arms are all full, draining or to be avoided."""
    block, node = fleet.columns.block, table.shown.node[rows]
    usable = block[OWN, node] + block[FOREIGN, node] >= block[CAPACITY, node]  # full, so not shut for another reason
    if avoid:
        usable &= ~np.isin(node, fleet.numbers(avoid))
    if not usable.any():
        return NodeUnavailable(
            "every node that could do it is stopping or has just failed it", retry_after_s=FLEET_RETRY_S
        )
    full = node[usable]
    mean_s = block[BACKLOG_S, full] / np.maximum(block[OWN, full], 1.0)
    return QueueFull(
        f"all {len(np.unique(full))} nodes that could do it are full",
        retry_after_s=float(np.clip(mean_s.min(), 0.5, 30.0)),
    )
