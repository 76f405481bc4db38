"""What the kernel does not do, said before it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util

from simulator.build import Simulation
from simulator.compiled.layout import ATTEMPTS, RULES
from simulator.dispatch import CoreDispatcher
from simulator.node import SimNode
from skyshore.links.capacity import Constant
from skyshore.policies.class_statistics import MOST_CLASSES
from skyshore.profiling.reward import RewardWeights
from skyshore.scenario import Scenario


def why_plain(scenario: Scenario, simulation: Simulation) -> str:
    """Why this simulation needs the plain engine; empty if the kernel gives the same answers."""
    return next(_reasons(scenario, simulation), "")


def _reasons(scenario: Scenario, simulation: Simulation) -> Iterator[str]:
    dispatcher, settings = simulation.dispatcher, simulation.cluster.settings
    if util.find_spec("numba") is None:
        yield "numba is not installed: pip install 'skyshore[sim]'"
    if scenario.faults:
        yield "the scenario has faults"
    if not isinstance(dispatcher, CoreDispatcher) or dispatcher.on_decision is not None:
        yield "a log of decisions is kept"
        return
    core = dispatcher.core
    formula, weights = core.policy.formula(), core.settings.weights
    if formula is None or formula.rule not in RULES or core.slot_s > 0:
        yield f"policy '{core.policy_name}' has no compiled form"
    if len(scenario.service_classes) >= MOST_CLASSES:
        yield f"there are {len(scenario.service_classes)} service classes, and fewer than {MOST_CLASSES} are kept apart"
    if weights != RewardWeights(constraint=weights.constraint):
        yield "joules are weighed"
    if settings.overheads is not None:
        yield "overheads are drawn from a measured spread"
    if settings.attempts > ATTEMPTS or settings.outcome_s >= core.settings.grace_s:
        yield "attempts or the delay of outcomes are unusual"
    for node in simulation.cluster.nodes.values():
        yield from _of_node(node)


def _of_node(node: SimNode) -> Iterator[str]:
    name = node.node.node_id
    if node.shares_host:
        yield f"node '{name}' shares its machine"
    for speed in node.profile.llm:
        if speed.stall_ratio or speed.row_multiple > 1:
            yield f"prompts and answers take turns on node '{name}'"
        if not (speed.iteration_time_s(0, 1) > 0 and speed.iteration_time_s(1, 0) > 0):
            yield f"node '{name}' answers at once"
    for way in (node.path.up, node.path.down):
        if not isinstance(way.bucket.capacity, Constant):
            yield f"the link of node '{name}' follows a trace or has outages"
        if way.line.direction.loss:
            yield f"the link of node '{name}' loses packets"
