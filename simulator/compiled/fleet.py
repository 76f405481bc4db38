"""From a simulation's plain objects to the kernel's arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulator.build import Simulation
from simulator.compiled.layout import (
    ARM,
    BUCKET,
    CLOCK,
    ESTIMATES,
    LLM,
    NODE,
    REWARD_WINDOW,
    REWARDS,
    RULE,
    RULES,
    SERVER,
    VIDEO,
    WAY,
    Fleet,
    Floats,
    Mind,
    Numbers,
    Records,
)
from simulator.dispatch import CoreDispatcher
from simulator.node import SimNode
from skyshore.domain.node import Arm
from skyshore.domain.task import TaskKind
from skyshore.links.capacity import Constant
from skyshore.links.meter import MeteredWay
from skyshore.links.shaper import Bucket, OneWay
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.policies.class_statistics import MOST_CLASSES
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.node_columns import NodeState
from skyshore.scheduling.tables import build_table

DRAWS = 1024
"""Normal deviates drawn ahead for each direction of a link, and most that one event may take."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What a run starts from."""

    clock: Records
    fleet: Fleet
    mind: Mind
    arms: tuple[Arm, ...]
    """By the kernel's number."""
    node_ids: tuple[str, ...]
    gateway_s: float
    rngs: tuple[np.random.Generator, ...]
    """One a direction of a link."""

    def draw_ahead(self) -> None:
        """Fill up what was used of the deviates, in each direction's own order."""
        for number, rng in enumerate(self.rngs):
            way, row = self.fleet.ways[number], self.fleet.draws[number]
            used = int(way["drawn"])
            if way["jitter_s"] and used:
                row[:-used] = row[used:].copy()
                row[-used:] = rng.standard_normal(used)
                way["drawn"] = 0


def stand_of(simulation: Simulation) -> Stand:
    """Lay everything out as it is before the first event."""
    nodes = list(simulation.cluster.nodes.values())
    servers = [(number, speed) for number, node in enumerate(nodes) for speed in engines_of(node).values()]
    arms, tables = _arms(nodes)
    # A node without a link has one and the same way up and down.
    ways = list({id(way): way for node in nodes for way in (node.path.up, node.path.down)}.values())
    settings = simulation.cluster.settings
    clock = np.zeros(1, dtype=CLOCK)
    for name in ("gateway_s", "hop_s", "outcome_s", "heartbeat_s", "attempts"):
        clock[name] = getattr(settings, name)
    places = {}
    for place, (number, speed) in enumerate(servers):
        places[number, _engine_name(speed)] = place
    room = max((speed.slots + speed.queue for _, speed in servers), default=0) + 2
    draws, way_records, bucket_records = _links(ways)
    fleet = Fleet(
        nodes=_nodes(nodes, [number for number, _ in servers], ways),
        servers=_servers(servers),
        arms=_arm_records(nodes, arms, places),
        tables=tables,
        ways=way_records,
        buckets=bucket_records,
        draws=draws,
        waiting=np.zeros((len(servers), room), dtype=np.int64),
        working=np.zeros((len(servers), room), dtype=np.int64),
        unpaid=np.zeros((len(servers), room), dtype=np.int64),
        finished=np.zeros(room, dtype=np.int64),
    )
    rngs = tuple(way.line.rng for way in ways)
    stand = Stand(
        clock, fleet, _mind(simulation, len(arms)), arms, tuple(simulation.cluster.nodes), settings.gateway_s, rngs
    )
    for number, rng in enumerate(rngs):
        if fleet.ways[number]["jitter_s"]:
            fleet.draws[number] = rng.standard_normal(draws.shape[1])
    return stand


def core_of(simulation: Simulation) -> SchedulerCore:
    """The scheduler that decides."""
    assert isinstance(simulation.dispatcher, CoreDispatcher), "other dispatchers are run by the plain simulator"
    return simulation.dispatcher.core


def engines_of(node: SimNode) -> dict[str, LlmSpeed | VideoSpeed]:
    """Engines of a node by model, in the order in which its meter adds them up."""
    llm = {_engine_name(speed): speed for speed in node.profile.llm}
    return llm | {_engine_name(speed): speed for speed in node.profile.video}


def _engine_name(speed: LlmSpeed | VideoSpeed) -> str:
    return speed.model.partition(":")[0] if isinstance(speed, LlmSpeed) else speed.model


def _arms(nodes: list[SimNode]) -> tuple[tuple[Arm, ...], Numbers]:
    """All arms, kind by kind in the order of the scheduler's tables, and where each kind begins."""
    arms: list[Arm] = []
    firsts = [0]
    for kind in TaskKind:
        arms += [arm for node in nodes for arm in node.node.arms if arm.kind is kind]
        firsts.append(len(arms))
    return tuple(arms), np.array(firsts, dtype=np.int64)


def _arm_records(nodes: list[SimNode], arms: tuple[Arm, ...], places: dict[tuple[int, str], int]) -> Records:
    numbers = {node.node.node_id: number for number, node in enumerate(nodes)}
    records = np.zeros(len(arms), dtype=ARM)
    fleet = [(NodeState(number), node.node) for number, node in enumerate(nodes)]
    rows = [row for kind in TaskKind if (table := build_table(kind, fleet)) for row in table.rows]
    for record, row in zip(records, rows, strict=True):
        for name in ("slots", "context_tokens", "prefill_s_per_token", "decode_s_per_token", "frame_s", "stride"):
            record[name] = getattr(row, name)
        for name in ("quality", "busy_watts", "bytes_per_frame", "frame_stride"):
            record[name] = getattr(row.arm, name)
        record["node"] = numbers[row.arm.node_id]
        record["server"] = places[numbers[row.arm.node_id], row.arm.model]
    return records


def _nodes(nodes: list[SimNode], owners: list[int], ways: list[OneWay]) -> Records:
    records = np.zeros(len(nodes), dtype=NODE)
    records["idle_watts"] = [node.profile.idle_watts for node in nodes]
    records["link_joules_per_byte"] = [node.path.joules_per_byte for node in nodes]
    records["bytes_per_s"], records["capacity"], records["guessing"] = math.inf, 1.0, 1
    records["servers"] = np.bincount(owners, minlength=len(nodes))
    records["first_server"] = np.cumsum(records["servers"]) - records["servers"]
    places = {id(way): place for place, way in enumerate(ways)}
    records["up"] = [places[id(node.path.up)] for node in nodes]
    records["down"] = [places[id(node.path.down)] for node in nodes]
    return records


def _servers(servers: list[tuple[int, LlmSpeed | VideoSpeed]]) -> Records:
    records = np.zeros(len(servers), dtype=SERVER)
    for record, (node, speed) in zip(records, servers, strict=True):
        record["node"], record["slots"], record["room"] = node, speed.slots, speed.slots + speed.queue
        record["busy_watts"] = speed.busy_watts
        record["kind"] = LLM if isinstance(speed, LlmSpeed) else VIDEO
        own = ("iteration_s", "prefill_token_s", "row_s", "kv_tokens", "chunk_tokens")
        for name in own if isinstance(speed, LlmSpeed) else ("segment_s",):
            record[name] = getattr(speed, name)
    return records


def _links(ways: list[OneWay]) -> tuple[Floats, Records, Records]:
    records = np.zeros(len(ways), dtype=WAY)
    buckets: dict[int, tuple[int, Bucket]] = {}
    for record, way in zip(records, ways, strict=True):
        bucket, _ = buckets.setdefault(id(way.bucket), (len(buckets), way.bucket))
        record["bucket"] = bucket
        record["delay_s"], record["jitter_s"] = way.line.direction.delay_s, way.line.direction.jitter_s
        record["last_s"] = record["meter_left_s"] = record["meter_counted_s"] = -math.inf
        record["metered"] = isinstance(way, MeteredWay)
        record["chunk_bytes"] = way.chunk_bytes if isinstance(way, MeteredWay) else 0
        record["margin"] = DRAWS
    jitter = bool(records["jitter_s"].any())
    draws = np.zeros((len(ways) if jitter else 0, 2 * DRAWS))
    bucket_records = np.zeros(len(buckets), dtype=BUCKET)
    for number, shared in buckets.values():
        assert isinstance(shared.capacity, Constant), "links outside this are run by the plain simulator"
        bucket_records[number]["rate"] = shared.capacity.rate_bytes_per_s
        bucket_records[number]["unlimited"] = math.isinf(shared.capacity.rate_bytes_per_s)
    return draws, records, bucket_records


def _mind(simulation: Simulation, arms: int) -> Mind:
    core = core_of(simulation)
    formula = core.policy.formula()
    assert formula is not None, "policies without one are run by the plain simulator"
    rule = np.zeros(1, dtype=RULE)
    rule["name"] = RULES.index(formula.rule)
    rule["reward_weight"] = core.settings.weights.constraint
    for name, value in formula.numbers.items():
        rule[name] = value
    tables = len(TaskKind)
    rewards = np.zeros(tables, dtype=REWARDS)
    rewards["value"] = 1.0
    return Mind(
        rule=rule,
        counts=np.zeros((MOST_CLASSES, arms)),
        sums=np.zeros((MOST_CLASSES, arms)),
        totals=np.zeros((MOST_CLASSES, tables)),
        rng=formula.rng,
        last=np.full(tables, -1, dtype=np.int64),
        rewards=rewards,
        joules=np.zeros((tables, REWARD_WINDOW)),
        rows=np.zeros(max(arms, 1), dtype=np.int64),
        scores=np.zeros(max(arms, 1)),
        estimates=np.zeros((max(arms, 1), ESTIMATES)),
    )
