"""Which arms may take a task, and what it would cost there."""

from __future__ import annotations

from skyshore.rules.estimate import estimate_arm
from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE, Integers, Options, Record, Records


@kernel
def is_capable(demand: Record, arm: Record) -> bool:
    """Whether an arm could ever serve a task: model, context length and quality."""
    if demand.model not in (NONE, arm.model):
        return False
    return bool(
        arm.context_tokens >= demand.prompt_tokens + demand.expected_tokens and arm.quality >= demand.min_quality
    )


@kernel
def is_avoided(demand: Record, node: int) -> bool:
    """Whether the node has just failed the task."""
    for index in range(demand.tries):  # noqa: SIM110 (numba has no `any`)
        if demand.tried[index] == node:
            return True
    return False


@kernel
def list_options(demand: Record, nodes: Records, arms: Records, order: Integers, options: Options) -> None:
    """Estimates of the arms that may take the task now, in the order of their table.

    `order` has for each kind of task first how many arms there are, then their numbers. An arm may take the task if
    it is capable of it and its node is open and not to be avoided. `full` counts capable arms whose node has no room.
    """
    decision, line = options.decision[0], order[demand.kind]
    capable = count = full = 0
    for row in range(line[0]):
        number = line[row + 1]
        arm = arms[number]
        if not is_capable(demand, arm):
            continue
        capable += 1
        if is_avoided(demand, arm.node):
            continue
        node = nodes[arm.node]
        if node.own + node.foreign >= node.capacity:
            full += 1
        if node.open:
            estimate = options.estimates[count]
            estimate.arm, estimate.row, estimate.node = number, row, arm.node
            estimate_arm(estimate, demand, arm, node)
            count += 1
    decision.capable, decision.count, decision.full = capable, count, full
