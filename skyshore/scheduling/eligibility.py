"""The error to give when no arm may take a task."""

from __future__ import annotations

from skyshore.domain.errors import NodeUnavailable, NoFeasibleArm, QueueFull, SkyshoreError
from skyshore.policies.protocol import Context
from skyshore.rules.records import column
from skyshore.scheduling.fleet import Fleet
from skyshore.scheduling.tables import KindTable

FLEET_RETRY_S = 2.0
"""Advised wait when nodes are missing: two heartbeats."""


def why_none(
    fleet: Fleet, table: KindTable | None, context: Context, avoid: tuple[str, ...], *, capable: int
) -> SkyshoreError:
    """The error for a task that no arm may take now; `capable` arms could ever serve it."""
    if not len(fleet):
        return NodeUnavailable("no node is alive; start one and ask again", retry_after_s=FLEET_RETRY_S)
    if table is None:
        return NoFeasibleArm(f"no live node serves '{context.task.kind.value}'; start one that does", param="kind")
    return _why_closed(fleet, table, context, avoid) if capable else _why_incapable(table, context)


def _tokens(context: Context) -> float:
    return context.profile.prompt_tokens + context.profile.expected_output_tokens


def _why_incapable(table: KindTable, context: Context) -> SkyshoreError:
    task, tokens = context.task, _tokens(context)
    if task.model and task.model not in table.models:
        offered = ", ".join(sorted(table.models))
        return NoFeasibleArm(f"no live node runs model '{task.model}'; running are {offered}", param="model")
    arms = [arm for arm in table.arms if not task.model or arm.model == task.model]
    best = max(arm.quality for arm in arms)
    if best < task.min_quality:
        return NoFeasibleArm(
            f"quality {task.min_quality} is asked for, the best arm gives {best:.3f}", param="min_quality"
        )
    longest = max(arm.context_tokens or float("inf") for arm in arms)
    if longest < tokens:
        return NoFeasibleArm(f"{tokens:.0f} tokens are needed, the longest context is {longest:.0f}", param="prompt")
    return NoFeasibleArm("no arm has both the quality and the context asked for; lower one", param="min_quality")


def _why_closed(fleet: Fleet, table: KindTable, context: Context, avoid: tuple[str, ...]) -> SkyshoreError:
    task, tokens, count = context.task, _tokens(context), len(fleet.nodes)
    own, foreign = column(fleet.nodes, "own", count), column(fleet.nodes, "foreign", count)
    capacity, backlog_s = column(fleet.nodes, "capacity", count), column(fleet.nodes, "backlog_s", count)
    able = [
        (int(number), node_id)
        for arm, number, node_id in zip(table.arms, table.shown.node, table.shown.node_ids, strict=True)
        if (not task.model or arm.model == task.model)
        and (arm.context_tokens or float("inf")) >= tokens
        and arm.quality >= task.min_quality
    ]
    # A node that is full is not closed for another reason.
    full = {
        number for number, node_id in able if own[number] + foreign[number] >= capacity[number] and node_id not in avoid
    }
    if not full:
        return NodeUnavailable(
            "every node that could do it is stopping or has just failed it", retry_after_s=FLEET_RETRY_S
        )
    mean_s = min(float(backlog_s[number] / max(own[number], 1.0)) for number in full)
    return QueueFull(f"all {len(full)} nodes that could do it are full", retry_after_s=min(max(mean_s, 0.5), 30.0))
