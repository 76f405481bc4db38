"""The table of fault kinds: the fields of each, and the effects that it is composed of.

A new kind that is composed of known effects is one class here and its name in `AnyFault`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from skyshore.scenario.effects import CutLink, LinkEffect, NodeEffect, SlowNode, StartNode, StopNode, TimedEffect
from skyshore.scenario.fields import Duration, Name, Positive, ScenarioTable


class FaultTable(ScenarioTable):
    """Something that goes wrong at a time."""

    at_s: Duration
    node: Name

    @abstractmethod
    def effects(self) -> Iterator[tuple[float, NodeEffect | LinkEffect]]:
        """What happens, each with its time in seconds after the start of the workload."""


class CrashTable(FaultTable):
    """A node ends without warning. A node that joins later has a crash at 0."""

    kind: Literal["crash"] = "crash"
    for_s: Positive | None = None
    """Time until the node starts again; left out, it does not."""

    def effects(self) -> Iterator[tuple[float, NodeEffect]]:
        """Stop; start after `for_s`."""
        yield self.at_s, StopNode()
        if self.for_s is not None:
            yield self.at_s + self.for_s, StartNode()


class BootTable(FaultTable):
    """A node that crashed before starts again."""

    kind: Literal["boot"] = "boot"

    def effects(self) -> Iterator[tuple[float, NodeEffect]]:
        """Start."""
        yield self.at_s, StartNode()


class OutageTable(FaultTable):
    """The link of a node carries nothing for a time; so do all links that share its uplink."""

    kind: Literal["outage"] = "outage"
    for_s: Positive

    def effects(self) -> Iterator[tuple[float, LinkEffect]]:
        """Cut the link."""
        yield self.at_s, CutLink(for_s=self.for_s)


class DriftTable(FaultTable):
    """A node becomes slower than it says. Live, only emulated nodes can."""

    kind: Literal["drift"] = "drift"
    slowdown: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """Work that starts from then on takes this many times as long."""
    for_s: Positive | None = None
    """How long; left out, to the end."""

    def effects(self) -> Iterator[tuple[float, NodeEffect]]:
        """Slow the node down; back to normal after `for_s`."""
        yield self.at_s, SlowNode(slowdown=self.slowdown)
        if self.for_s is not None:
            yield self.at_s + self.for_s, SlowNode(slowdown=1.0)


AnyFault: TypeAlias = CrashTable | BootTable | OutageTable | DriftTable
FAULT_KINDS: dict[str, type[FaultTable]] = {each.model_fields["kind"].default: each for each in get_args(AnyFault)}


def effects_of(fault: FaultTable) -> list[TimedEffect]:
    """The effects of one fault, in the order of its definition."""
    return [TimedEffect(at_s, fault.node, effect) for at_s, effect in fault.effects()]


def node_effects(faults: Iterable[FaultTable]) -> list[tuple[float, str, NodeEffect]]:
    """(at_s, node_id, effect) of every effect on a node, by time; effects at one time keep the order of the file.

    Effects on links are left out: the links plan them in advance (`skyshore.scenario.links`).
    """
    found = [
        (at_s, node_id, effect)
        for fault in faults
        for at_s, node_id, effect in effects_of(fault)
        if not isinstance(effect, LinkEffect)
    ]
    return sorted(found, key=lambda each: each[0])
