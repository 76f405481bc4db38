"""Builds a simulation from a scenario."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from simulator.plant import LinkPath, NodePlan
from simulator.policy import DecidingPolicy, PolicyDriver
from simulator.simulation import Simulation, SimulationSettings
from skyshore.domain.placement import DecisionRecord
from skyshore.links.capacity import Constant, Trace
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of, chunk_bytes
from skyshore.nodemodel.calibration import Overheads
from skyshore.policies.protocol import Policy
from skyshore.policies.registry import create_policy
from skyshore.rules.reward import RewardWeights, blank_rewards
from skyshore.scenario import Scenario
from skyshore.scenario.effects import NodeEffect, SlowNode, StartNode, StopNode
from skyshore.scenario.faults import node_effects
from skyshore.scenario.files import calibration_of, profile_of, read_trace
from skyshore.scenario.links import link_settings


def build(
    scenario: Scenario,
    folder: Path,
    *,
    settings: SimulationSettings | None = None,
    on_decision: Callable[[DecisionRecord], None] | None = None,
    policy: Policy | None = None,
    arrays: bool = False,
) -> Simulation:
    """Wire a scenario under its policy; files it names are looked up in `folder`.

    Args:
        scenario: What is simulated.
        folder: Where its files are.
        settings: Constants of the run, in place of those that the scenario was calibrated to.
        on_decision: Is shown every decision, refusals too.
        policy: In place of the scenario's.
        arrays: Run machine code; numba must be installed.

    Raises:
        InvalidScenario: a profile or a trace cannot be used.
        NotFound: no such policy.
    """
    policy = policy or create_policy(scenario.policy, np.random.default_rng([scenario.seed, 0]))
    driver = DecidingPolicy(scenario.policy, policy, on_decision)
    return fleet(scenario, folder, driver, settings=settings, arrays=arrays)


def fleet(
    scenario: Scenario,
    folder: Path,
    policy: PolicyDriver,
    *,
    settings: SimulationSettings | None = None,
    arrays: bool = False,
) -> Simulation:
    """A scenario's nodes, links and faults, under any policy driver. Raises InvalidScenario like `build`."""
    links = _Links(scenario, folder)
    known = calibration_of(scenario, folder)
    plans = []
    for table in scenario.nodes:
        stated = profile_of(table, folder)
        plans += [
            NodePlan(
                node_id,
                table.tier,
                known.nodes.get(node_id, stated),
                links.path(node_id),
                "calibrated" if known.contention and node_id in known.nodes else "",
            )
            for node_id in table.ids
        ]
    settings = settings or settings_of(known.overheads, scenario.seed)
    rewards = blank_rewards(RewardWeights())
    simulation = Simulation(plans, policy, rewards, settings, contention=known.contention, arrays=arrays)
    for at_s, node_id, effect in node_effects(scenario.faults):
        simulation.at(at_s, partial(_apply, simulation, node_id, effect))
    return simulation


def settings_of(overheads: Overheads, seed: int | None = None) -> SimulationSettings:
    """Settings with the times of the hops between client, gateway and node: drawn, or the medians without a seed."""
    drawn = None
    if seed is not None and overheads.request_spread_s:
        drawn = _drawn(overheads, np.random.default_rng([seed, *b"overheads"]))
    return SimulationSettings(gateway_s=overheads.gateway_s, hop_s=overheads.request_s / 2, overheads=drawn)


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
        """The link of a node."""
        settings = link_settings(self._scenario, node_id)
        if settings is None:
            free = LinkDirection(Bucket(Constant(math.inf)), DelayLine(Direction(), 0.0, self._rng(node_id, 0)))
            return LinkPath(free, free)
        directions = [settings.up, settings.down]
        buckets = self._buckets(settings.shared, directions)
        rtt_s = sum(direction.delay_s for direction in directions)
        up, down = (
            LinkDirection(bucket, DelayLine(direction, rtt_s, self._rng(node_id, number)))
            for number, (bucket, direction) in enumerate(zip(buckets, directions, strict=True))
        )
        up_chunk, down_chunk = (chunk_bytes(direction, self._trace(direction.trace)) for direction in directions)
        return LinkPath(up, down, up_chunk, down_chunk, settings.joules_per_byte)

    def _buckets(self, word: str, directions: list[Direction]) -> tuple[Bucket, Bucket]:
        if word in self._shared:
            return self._shared[word]
        up, down = (Bucket(capacity_of(each, self._trace(each.trace))) for each in directions)
        if word:
            self._shared[word] = (up, down)
        return up, down

    def _trace(self, name: str) -> Trace | None:
        if not name:
            return None
        if name not in self._traces:
            self._traces[name] = read_trace(self._folder, name)
        return self._traces[name]

    def _rng(self, node_id: str, direction: int) -> np.random.Generator:
        # By name, so that a node's jitter does not change when another node is added.
        return np.random.default_rng([self._scenario.seed, direction, *node_id.encode()])


def _apply(simulation: Simulation, node_id: str, effect: NodeEffect) -> None:
    match effect:
        case StopNode():
            simulation.crash(node_id)
        case StartNode():
            simulation.boot(node_id)
        case SlowNode():
            simulation.drift(node_id, effect.slowdown)
