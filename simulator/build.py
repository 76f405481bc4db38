"""From a scenario to a fleet in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.cluster import Cluster, ClusterSettings
from simulator.dispatch import CoreDispatcher, Dispatcher
from simulator.host import Host
from simulator.node import NodePlan, SimNode
from simulator.node import Path as LinkPath
from simulator.timeline import Timeline
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.links.capacity import Constant, Trace
from skyshore.links.meter import MeteredWay
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, OneWay, capacity_of, chunk_bytes
from skyshore.nodemodel.calibration import Overheads
from skyshore.scenario import Scenario
from skyshore.scenario.effects import NodeEffect, SlowNode, StartNode, StopNode
from skyshore.scenario.faults import node_effects
from skyshore.scenario.files import calibration_of, profile_of, read_trace
from skyshore.scenario.links import link_settings
from skyshore.scheduling.core import CoreSettings, SchedulerCore


@dataclass(frozen=True, slots=True)
class Simulation:
    """Everything wired, nothing run yet."""

    timeline: Timeline
    cluster: Cluster
    dispatcher: Dispatcher


def build(
    scenario: Scenario,
    folder: Path,
    on_outcome: Callable[[Outcome], None],
    settings: ClusterSettings | None = None,
    on_decision: Callable[[DecisionRecord], None] | None = None,
) -> Simulation:
    """Wire a scenario; files it names are looked up in `folder`. `on_decision` is shown every decision.

    Raises:
        InvalidScenario: a profile or a trace cannot be used.
        NotFound: no such policy.
    """
    timeline = Timeline()
    dispatcher = CoreDispatcher(SchedulerCore(CoreSettings(policy=scenario.policy, seed=scenario.seed)), on_decision)
    cluster = fleet(scenario, folder, timeline, dispatcher, on_outcome, settings=settings)
    return Simulation(timeline, cluster, dispatcher)


def fleet(
    scenario: Scenario,
    folder: Path,
    timeline: Timeline,
    dispatcher: Dispatcher,
    on_outcome: Callable[[Outcome], None],
    *,
    settings: ClusterSettings | None = None,
) -> Cluster:
    """A scenario's nodes, links and faults under any dispatcher. Raises InvalidScenario like `build`."""
    links = _Links(scenario, folder)
    plans = []
    known = calibration_of(scenario, folder)
    host = Host(known.contention) if known.contention else None
    for table in scenario.nodes:
        stated = profile_of(table, folder)
        plans += [
            NodePlan(
                node_id,
                table.tier,
                known.nodes.get(node_id, stated),
                links.path(node_id),
                host if node_id in known.nodes else None,
            )
            for node_id in table.ids
        ]
    cluster = Cluster(timeline, plans, dispatcher, on_outcome, settings or settings_of(known.overheads, scenario.seed))
    for at_s, node_id, effect in node_effects(scenario.faults):
        timeline.at(at_s, _apply, (cluster, cluster.nodes[node_id], effect))
    return cluster


def settings_of(overheads: Overheads, seed: int | None = None) -> ClusterSettings:
    """What the hops between client, gateway and node take: drawn from their spread, or the medians without a seed."""
    drawn = None
    if seed is not None and overheads.request_spread_s:
        drawn = _drawn(overheads, np.random.default_rng([seed, *b"overheads"]))
    return ClusterSettings(gateway_s=overheads.gateway_s, hop_s=overheads.request_s / 2, overheads=drawn)


def _drawn(overheads: Overheads, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    gateway_s, request_s = overheads.gateway_spread_s, overheads.request_spread_s
    while True:
        yield gateway_s[rng.integers(len(gateway_s))], request_s[rng.integers(len(request_s))] / 2


class _Links:
    """Makes each node's path; links that share a word share their buckets."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario, self._folder = scenario, folder
        self._traces: dict[str, Trace] = {}
        self._shared: dict[str, tuple[Bucket, Bucket]] = {}

    def path(self, node_id: str) -> LinkPath:
        settings = link_settings(self._scenario, node_id)
        if settings is None:
            free = OneWay(Bucket(Constant(math.inf)), DelayLine(Direction(), 0.0, self._rng(node_id, 0)))
            return LinkPath(free, free)
        ways = [settings.up, settings.down]
        buckets = self._buckets(settings.shared, ways)
        rtt_s = sum(way.delay_s for way in ways)
        lines = [DelayLine(way, rtt_s, self._rng(node_id, i)) for i, way in enumerate(ways)]
        chunks = [chunk_bytes(way, self._trace(way.trace)) for way in ways]
        up, down = (MeteredWay(*parts) for parts in zip(buckets, lines, chunks, strict=True))
        return LinkPath(up, down, settings.joules_per_byte)

    def _buckets(self, word: str, ways: list[Direction]) -> tuple[Bucket, Bucket]:
        if word in self._shared:
            return self._shared[word]
        up, down = (Bucket(capacity_of(way, self._trace(way.trace))) for way in ways)
        if word:
            self._shared[word] = (up, down)
        return up, down

    def _trace(self, name: str) -> Trace | None:
        if not name:
            return None
        if name not in self._traces:
            self._traces[name] = read_trace(self._folder, name)
        return self._traces[name]

    def _rng(self, node_id: str, way: int) -> np.random.Generator:
        # By name, so that a node's jitter does not change when another node is added.
        return np.random.default_rng([self._scenario.seed, way, *node_id.encode()])


def _apply(happening: tuple[Cluster, SimNode, NodeEffect]) -> None:
    cluster, node, effect = happening
    match effect:
        case StopNode():
            if node.alive:
                cluster.crash(node)
        case StartNode():
            if not node.alive:
                cluster.boot(node)
        case SlowNode():
            node.drift(effect.slowdown)


def joules_of(nodes: Mapping[str, SimNode]) -> dict[str, float]:
    """What each node drew in all, whether a task paid for it or not."""
    return {node_id: node.joules() for node_id, node in nodes.items()}
