"""Makes the records of a simulation from plans of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.records import ARM_STATE, HOST, NODE_STATE, Plant, View
from skyshore.domain.node import Arm, Node, Tier
from skyshore.domain.task import TaskKind
from skyshore.links.delivery import make_links
from skyshore.links.shaper import LinkDirection
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.engine import fill_engine
from skyshore.nodemodel.records import ENGINE, LEDGER
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.rules.records import KINDS, NODE, NONE, Records, blank_options, in_form, integers, put, rows
from skyshore.rules.reward import Rewards
from skyshore.scheduling.tables import KindTable, arm_records


@dataclass(frozen=True, slots=True)
class LinkPath:
    """Both directions of a node's link."""

    up: LinkDirection
    down: LinkDirection
    up_chunk_bytes: int | None = None
    """Pieces in which bytes are measured as the live relay measures them; None if they are not measured."""
    down_chunk_bytes: int | None = None
    joules_per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node's profile, link and machine."""

    node_id: str
    tier: Tier
    profile: NodeProfile
    path: LinkPath
    host: str = ""
    """Name of the machine that it shares with other nodes, where that was measured."""

    @property
    def node(self) -> Node:
        """Its registration."""
        arms = [llm_arm(self.node_id, speed) for speed in self.profile.llm]
        arms += video_arms(self.node_id, self.profile.video)
        return Node(self.node_id, self.tier, f"{self.node_id}:0", tuple(arms), self.profile.idle_watts, "emulated")

    @property
    def engines(self) -> list[tuple[str, LlmSpeed | VideoSpeed]]:
        """Its engines by model, in the order in which its meter adds them up."""
        llm = {speed.model.partition(":")[0]: speed for speed in self.profile.llm}
        video = {speed.model: speed for speed in self.profile.video}
        return [*llm.items(), *video.items()]


class FleetRecords:
    """The records of a fleet, as lists; `in_form` makes arrays of them."""

    def __init__(self, plans: Sequence[NodePlan], contention: float, largest_bytes: float, rewards: Rewards) -> None:
        """`contention`: see `Calibration`. `largest_bytes`: most that one event hands to a link."""
        self.plans = plans
        self.nodes = [plan.node for plan in plans]
        arms, self.tables = arm_records(list(enumerate(self.nodes)), arrays=False)
        self.arms: list[Arm] = [arm for table in self.tables.values() for arm in table.arms]
        self.largest_bytes = largest_bytes
        engines = [(number, model, speed) for number, plan in enumerate(plans) for model, speed in plan.engines]
        places = {(number, model): place for place, (number, model, _) in enumerate(engines)}
        directions = list(
            {id(each): (each, chunk) for plan in plans for each, chunk in _directions(plan.path)}.values()
        )
        self.rngs = [direction.line.rng for direction, _ in directions]
        self._directions = directions
        hosts = list(dict.fromkeys(plan.host for plan in plans if plan.host))
        self.engine_records = rows(ENGINE, len(engines), arrays=False)
        for record, (number, _, speed) in zip(self.engine_records, engines, strict=True):
            fill_engine(record, speed)
            record.node = number
        numbers = {id(direction): number for number, (direction, _) in enumerate(directions)}
        self.states = _states(plans, numbers, hosts, self.tables)
        self.ledgers = rows(LEDGER, len(plans), arrays=False)
        for ledger, plan in zip(self.ledgers, plans, strict=True):
            ledger.idle_watts = plan.profile.idle_watts
        self.hosts = rows(HOST, max(len(hosts), 1), arrays=False)
        for host in self.hosts:
            host.contention, host.busy = contention, NONE
        self.arm_states = _arm_states(self.arms, {node.node_id: n for n, node in enumerate(self.nodes)}, places)
        self._arms, self._rewards = arms, rewards

    @property
    def most_slots(self) -> int:
        """Most tasks that one engine works on."""
        return max((engine.slots for engine in self.engine_records), default=1)

    def plant(self, room: int, *, arrays: bool) -> Plant:
        """Nodes, engines and links as they are before the first event, with room for so many tasks."""
        directions = [direction for direction, _ in self._directions]
        links = make_links(directions, [chunk for _, chunk in self._directions], self.largest_bytes, arrays=arrays)
        return Plant(
            states=in_form(self.states, arrays=arrays),
            engines=in_form(self.engine_records, arrays=arrays),
            ledgers=in_form(self.ledgers, arrays=arrays),
            arms=in_form(self.arm_states, arrays=arrays),
            hosts=in_form(self.hosts, arrays=arrays),
            links=links,
            unpaid_after=integers(room, arrays=arrays, fill=NONE),
        )

    def view(self, *, arrays: bool) -> View:
        """What the scheduler knows before the first report: the arms, but no node."""
        most = max((len(table.arms) for table in self.tables.values()), default=0)
        return View(
            rows(NODE, len(self.plans), arrays=arrays),
            in_form(self._arms, arrays=arrays),
            integers(KINDS, most + 1, arrays=arrays),
            blank_options(max(most, 1), arrays=arrays),
            in_form(self._rewards, arrays=arrays),
        )

    def number_arms(self, kind: TaskKind, slots: Sequence[int], engines: Sequence[int]) -> None:
        """Write the numbers that a policy gives to the arms of a kind and to their engines."""
        first = self.tables[kind].first
        for row, (slot, engine) in enumerate(zip(slots, engines, strict=True)):
            put(self._arms[first + row], {"slot": slot, "engine": engine})


def _directions(path: LinkPath) -> list[tuple[LinkDirection, int | None]]:
    return [(path.up, path.up_chunk_bytes), (path.down, path.down_chunk_bytes)]


def _states(
    plans: Sequence[NodePlan],
    directions: dict[int, int],
    hosts: Sequence[str],
    tables: dict[TaskKind, KindTable],
) -> Records:
    states = rows(NODE_STATE, len(plans), arrays=False)
    for state, plan in zip(states, plans, strict=True):
        state.idle_watts, state.joules_per_byte = plan.profile.idle_watts, plan.path.joules_per_byte
        state.engines = len(plan.engines)
        state.up, state.down = directions[id(plan.path.up)], directions[id(plan.path.down)]
        state.host = hosts.index(plan.host) if plan.host else NONE
    first = 0
    for state in states:
        state.first_engine = first
        first += state.engines
    for kind_number, kind in enumerate(TaskKind):
        table = tables.get(kind)
        for row, node in enumerate(table.shown.node.tolist() if table else []):
            state = states[node]
            if not state.arms[kind_number]:
                state.first_arm[kind_number] = table.first + row  # type: ignore[union-attr]
            state.arms[kind_number] += 1
    return states


def _arm_states(arms: Sequence[Arm], nodes: dict[str, int], places: dict[tuple[int, str], int]) -> Records:
    states = rows(ARM_STATE, len(arms), arrays=False)
    for state, arm in zip(states, arms, strict=True):
        state.frame_s, state.bytes_per_frame, state.frame_stride = arm.frame_s, arm.bytes_per_frame, arm.frame_stride
        state.engine = places[nodes[arm.node_id], arm.model]
    return states
