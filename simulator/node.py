"""A simulated node: its engines, its link and its energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from simulator.flight import Flight, frames_sent
from simulator.host import Host
from simulator.servers import LlmServer, VideoServer
from simulator.timeline import Timeline
from skyshore.domain.node import Arm, Link, Node, NodeStatus, Tier
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.links.meter import MeteredWay
from skyshore.links.shaper import OneWay
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.energy import Charge, EnergyLedger
from skyshore.nodemodel.llm import Row
from skyshore.nodemodel.speed import NodeProfile
from skyshore.nodemodel.video import Segment

ENERGY_SOURCE = "modelled:nodemodel"


@dataclass(frozen=True, slots=True)
class Path:
    """Both ways of a node's link."""

    up: OneWay
    down: OneWay
    joules_per_byte: float = 0.0

    def measured(self) -> Link | None:
        """What its bytes say of it, as the live relay would; None before any went both ways, or if nobody measures."""
        if not isinstance(self.up, MeteredWay) or not isinstance(self.down, MeteredWay):
            return None
        up, down = self.up.meter, self.down.meter
        if not (up.delay_s and down.delay_s):
            return None
        return Link(up.bytes_per_s, down.bytes_per_s, up.delay_s + down.delay_s, self.joules_per_byte)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a node is made of."""

    node_id: str
    tier: Tier
    profile: NodeProfile
    path: Path
    host: Host | None = None
    """The machine it shares with other nodes, where that was measured."""


class SimNode:
    """Lives from `start` to `stop`; a node that comes back is started anew, with empty engines."""

    def __init__(
        self, plan: NodePlan, timeline: Timeline, served: Callable[[Flight, WorkerOutcome, float], None]
    ) -> None:
        """`served(flight, outcome, first_token_s)` is called when an engine is done with a task."""
        profile, self.path = plan.profile, plan.path
        self.tier, self._host = plan.tier, plan.host
        self.profile = profile
        self.alive = False
        self._spent_joules = 0.0
        self._timeline, self._served = timeline, served
        arms = [llm_arm(plan.node_id, speed) for speed in profile.llm]
        arms += video_arms(plan.node_id, profile.video)
        self._models = {arm.arm_id: arm.model for arm in arms}
        self._node = Node(plan.node_id, plan.tier, f"{plan.node_id}:0", tuple(arms), profile.idle_watts, "emulated")
        self._segment_s = {speed.model: speed.segment_s for speed in profile.video}
        self._lives, self._started_s, self._slowdown = 0, 0.0, 1.0
        self._llm: dict[str, LlmServer] = {}
        self._video: dict[str, VideoServer] = {}
        self._rows: dict[Row, Flight] = {}
        self._segments: dict[Segment, Flight] = {}
        self._servers: tuple[LlmServer | VideoServer, ...] = ()
        self._ledger = EnergyLedger(0.0, {}, 0.0, 0.0)

    @property
    def shares_host(self) -> bool:
        """Whether others' work slows its own."""
        return self._host is not None

    @property
    def node(self) -> Node:
        """Its registration in this life."""
        return self._node

    @property
    def flights(self) -> list[Flight]:
        """Tasks on it now."""
        return [*self._rows.values(), *self._segments.values()]

    def start(self) -> None:
        """Boot with empty engines."""
        now_s = self._timeline.now_s
        self.alive, self._started_s = True, now_s
        self._lives += 1
        # A new incarnation tells the scheduler that the node forgot whatever it was doing.
        self._node = replace(self._node, incarnation=str(self._lives))
        self._llm = {
            speed.model.partition(":")[0]: LlmServer(speed, self._timeline, self._row_done)
            for speed in self.profile.llm
        }
        self._video = {
            speed.model: VideoServer(speed, self._timeline, self._segment_done) for speed in self.profile.video
        }
        self.drift(self._slowdown)
        if self._host is not None:
            for server in self._llm.values():
                self._host.add(server)
        self._servers = (*self._llm.values(), *self._video.values())
        lanes = {model: llm.slots for model, llm in self._llm.items()}
        lanes |= {model: video.slots for model, video in self._video.items()}
        self._ledger = EnergyLedger(self.profile.idle_watts, lanes, now_s, 0.0)

    def drift(self, slowdown: float) -> None:
        """Take so many times as long for what is begun from now on; what the node says of itself stays as it was."""
        self._slowdown = slowdown
        for server in self._llm.values():
            server.drift(slowdown)

    def stop(self) -> list[Flight]:
        """Crash. Returns the tasks that were on it; what its engines had planned is void."""
        self._spent_joules += self._meter_joules()
        self.alive = False
        lost = self.flights
        for flight in lost:
            flight.account = None
        if self._host is not None:
            for server in self._llm.values():
                self._host.remove(server)
        self._rows.clear()
        self._segments.clear()
        return lost

    def offer(self, flight: Flight, arm: Arm, all_sent_s: float) -> bool:
        """Take a task whose first bytes are here; its last ones follow at `all_sent_s`. False when there is no room."""
        arrival, now_s, model = flight.arrival, self._timeline.now_s, self._models[arm.arm_id]
        if arm.kind is TaskKind.LLM:
            reserved = arrival.prompt_tokens + arrival.output_tokens
            row = Row(flight.task.task_id, arrival.prompt_tokens, arrival.output_tokens, reserved, now_s)
            if not self._llm[model].offer(row):
                return False
            flight.row = row
            self._rows[row] = flight
        else:
            work_s = (self._segment_s[model] + frames_sent(arrival, arm) * arm.frame_s) * self._slowdown
            # Work overlaps the upload, but the last frame is worked on after it has come.
            segment = Segment(flight.task.task_id, work_s, now_s, ready_s=all_sent_s + arm.frame_s)
            if not self._video[model].offer(segment):
                return False
            flight.segment = segment
            self._segments[segment] = flight
        flight.account = self._ledger.open(now_s, self._meter_joules(), model)
        return True

    def cancel(self, flight: Flight, arm: Arm) -> None:
        """The task's deadline passed. Nothing happens when it has left already."""
        model = self._models[arm.arm_id]
        if flight.row is not None and self._rows.pop(flight.row, None) is not None:
            self._llm[model].cancel(flight.row)
        elif flight.segment is not None and self._segments.pop(flight.segment, None) is not None:
            self._video[model].cancel(flight.segment)
        else:
            return
        self._charge(flight)

    def status(self) -> NodeStatus:
        """Its heartbeat now."""
        servers = self._servers
        return NodeStatus(
            node_id=self._node.node_id,
            running=sum(server.running for server in servers),
            queued=sum(server.queued for server in servers),
            capacity=sum(server.capacity for server in servers),
            kv_used=max((s.batch.kv_reserved / s.batch.speed.kv_tokens for s in self._llm.values()), default=0.0),
        )

    def joules(self) -> float:
        """Energy it drew so far, in all its lives."""
        return self._spent_joules + (self._meter_joules() if self.alive else 0.0)

    def _meter_joules(self) -> float:
        now_s = self._timeline.now_s
        busy = 0.0
        for server in self._servers:
            busy += server.busy_watts * server.busy_s(now_s)
        return self.profile.idle_watts * (now_s - self._started_s) + busy

    def _charge(self, flight: Flight) -> Charge:
        assert flight.account is not None, "every task on a node has an account"
        charge = self._ledger.close(self._timeline.now_s, self._meter_joules(), flight.account)
        flight.account = None
        return charge

    def _row_done(self, row: Row) -> None:
        flight = self._rows.pop(row, None)
        if flight is None:
            return  # cancelled, or of an earlier life
        charge = self._charge(flight)
        outcome = WorkerOutcome(
            queue_s=row.admitted_s - row.arrived_s,
            prefill_s=row.first_token_s - row.admitted_s,
            compute_s=self._timeline.now_s - row.first_token_s,
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            inference_joules=charge.inference_joules,
            idle_joules=charge.idle_joules,
            energy_source=ENERGY_SOURCE,
        )
        self._served(flight, outcome, row.first_token_s)

    def _segment_done(self, segment: Segment) -> None:
        flight = self._segments.pop(segment, None)
        if flight is None:
            return  # of an earlier life
        charge = self._charge(flight)
        outcome = WorkerOutcome(
            queue_s=segment.started_s - segment.arrived_s,
            compute_s=segment.work_s,
            frames=flight.profile.frame_count,
            inference_joules=charge.inference_joules,
            idle_joules=charge.idle_joules,
            energy_source=ENERGY_SOURCE,
        )
        self._served(flight, outcome, self._timeline.now_s)
