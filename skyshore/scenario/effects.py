"""What can happen to one node or its link at one moment: the primitives that every fault is composed of.

The simulator and the live launcher each execute the node effects; the link emulator and the simulator's links plan the
link effects in advance. A new effect is a class here and a case in each executor.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field, TypeAdapter

from skyshore.scenario.fields import Positive, ScenarioTable


class StopNode(ScenarioTable):
    """The node ends at once, without warning; its tasks are lost."""

    effect: Literal["stop_node"] = "stop_node"


class StartNode(ScenarioTable):
    """The node starts with empty engines."""

    effect: Literal["start_node"] = "start_node"


class SlowNode(ScenarioTable):
    """Work that starts from now on takes `slowdown` times as long; 1 is normal. The node does not report it."""

    effect: Literal["slow_node"] = "slow_node"
    slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class CutLink(ScenarioTable):
    """The node's link, and every link that shares its uplink, carries nothing for `for_s` seconds."""

    effect: Literal["cut_link"] = "cut_link"
    for_s: Positive


NodeEffect: TypeAlias = StopNode | StartNode | SlowNode
LinkEffect: TypeAlias = CutLink
NODE_EFFECT: TypeAdapter[NodeEffect] = TypeAdapter(Annotated[NodeEffect, Field(discriminator="effect")])
"""Reads a node effect from a JSON object."""


class TimedEffect(NamedTuple):
    """An effect on a node, `at_s` seconds after the start of the workload."""

    at_s: float
    node_id: str
    effect: NodeEffect | LinkEffect
