"""The simulated fleet: what gateway, links and nodes do with each request, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from simulator.deadlines import Deadlines
from simulator.dispatch import Dispatcher, status_of
from simulator.flight import Flight, flight_of
from simulator.node import NodePlan, SimNode
from simulator.preferences import SegmentPictures
from simulator.timeline import Timeline
from skyshore.domain.errors import SkyshoreError
from skyshore.domain.node import Arm, Link
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

NO_WORK = WorkerOutcome()


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What is constant in a run."""

    gateway_s: float = 0.003
    """From arrival to dispatch: profiling, deciding, the hops between."""
    hop_s: float = 0.0
    """Between gateway and node beyond the link, each way: remote calls and the client's own hops."""
    outcome_s: float = 0.02
    """From the end of a task to the policy's knowing of it."""
    heartbeat_s: float = 1.0
    lease_s: float = 3.0
    """A silent node is dropped after this long."""
    attempts: int = 3
    """Nodes tried before a task fails."""
    overheads: Iterator[tuple[float, float]] | None = None
    """Without end: `gateway_s` and `hop_s` of one request after the other, in place of the constants."""


class Cluster:
    """Feeds arrivals through a dispatcher, links and nodes; every task ends in exactly one outcome."""

    def __init__(
        self,
        timeline: Timeline,
        plans: Iterable[NodePlan],
        dispatcher: Dispatcher,
        on_outcome: Callable[[Outcome], None],
        settings: ClusterSettings | None = None,
    ) -> None:
        self.settings = settings or ClusterSettings()
        self.nodes: Mapping[str, SimNode] = {plan.node_id: SimNode(plan, timeline, self._served) for plan in plans}
        self.open_tasks = 0
        self._timeline, self._dispatcher, self._on_outcome = timeline, dispatcher, on_outcome
        self._more = False
        self._links: dict[tuple[str, str], Link] = {}
        """Node id, incarnation → its link as last told."""
        self._deadlines = Deadlines(timeline, self._expire)
        self._pictures = SegmentPictures()
        self._gathered: dict[str, Flight] = {}
        """Tasks that wait for the end of their slot."""

    def start(self, arrivals: Iterable[Arrival]) -> None:
        """Boot all nodes and plan the first arrival; the others follow one by one, so the heap stays small.

        `timeline.run()` returns when the last task has ended.
        """
        for node in self.nodes.values():
            self.boot(node)
        self._timeline.at(self._timeline.now_s + self.settings.heartbeat_s, self._beat, None)
        self._plan_next(iter(arrivals))
        if not self._more:
            self._timeline.at(self._timeline.now_s, self._close, None)

    def boot(self, node: SimNode) -> None:
        """A node joins, or comes back."""
        node.start()
        self._dispatcher.reported(self._timeline.now_s, node.node, node.status())

    def crash(self, node: SimNode) -> None:
        """A node dies at once. Its tasks fail or, before their first token, go elsewhere."""
        lost = node.stop()
        self._timeline.at(self._timeline.now_s + self.settings.lease_s, self._lapse, (node, node.node.incarnation))
        for flight in lost:
            self._attempt_failed(flight, OutcomeStatus.FAILED)

    # -------------------------------------------------------------------------------------------- arrivals

    def _plan_next(self, arrivals: Iterator[Arrival]) -> None:
        arrival = next(arrivals, None)
        self._more = arrival is not None
        if arrival is not None:
            self._timeline.at(arrival.t_intended_s, self._arrive, (arrival, arrivals))

    def _arrive(self, planned: tuple[Arrival, Iterator[Arrival]]) -> None:
        arrival, arrivals = planned
        flight = flight_of(arrival, self._timeline.now_s, self._pictures)
        settings = self.settings
        flight.gateway_s, flight.hop_s = settings.gateway_s, settings.hop_s
        if settings.overheads is not None:
            flight.gateway_s, flight.hop_s = next(settings.overheads)
        self.open_tasks += 1
        self._deadlines.add(arrival.deadline_s, flight)
        self._plan_next(arrivals)
        self._place(flight)

    def _place(self, flight: Flight) -> None:
        now_s = self._timeline.now_s
        flight.attempt += 1
        try:
            arm = self._dispatcher.place(now_s, flight, flight.avoid)
        except SkyshoreError as error:
            self._refused(flight, error)
            return
        if arm is not None:
            self._send(flight, arm)
            return
        if not self._gathered:
            slot_s = self._dispatcher.slot_s
            self._timeline.at((now_s // slot_s + 1) * slot_s, self._end_slot, None)
        self._gathered[flight.task.task_id] = flight

    def _end_slot(self, _: None) -> None:
        now_s = self._timeline.now_s
        for task_id, answer in self._dispatcher.tick(now_s):
            flight = self._gathered.pop(task_id)
            if not isinstance(answer, SkyshoreError):
                self._send(flight, answer)
            elif not flight.over:
                self._refused(flight, answer)

    def _refused(self, flight: Flight, error: SkyshoreError) -> None:
        flight.arm = None
        self._end(flight, status_of(error))

    def _send(self, flight: Flight, arm: Arm) -> None:
        now_s = self._timeline.now_s
        node = self.nodes[arm.node_id]
        flight.arm, flight.up_bytes = arm, flight.bytes_to(arm)
        if flight.over:  # its deadline came before its slot's end: its room is not needed
            self._tell(self._outcome(flight, OutcomeStatus.CANCELLED))
            return
        leaves_s = now_s + flight.gateway_s + flight.hop_s
        sent_s = node.path.up.deliver(leaves_s, flight.up_bytes)
        reached_s = sent_s
        if flight.task.kind is not TaskKind.LLM:
            # Frames are worked on as they come; the segment queues from when its header has arrived.
            reached_s = min(sent_s, leaves_s + node.path.up.delay_s)
        self._timeline.at(reached_s, self._reach, (flight, flight.attempt, arm, sent_s))

    def _reach(self, sent: tuple[Flight, int, Arm, float]) -> None:
        flight, attempt, arm, sent_s = sent
        if flight.over or attempt != flight.attempt:
            return
        node = self.nodes[arm.node_id]
        if not node.alive:
            self._attempt_failed(flight, OutcomeStatus.FAILED)
        elif not node.offer(flight, arm, sent_s):
            self._attempt_failed(flight, OutcomeStatus.REJECTED)

    # ------------------------------------------------------------------------------------------------ ends

    def _served(self, flight: Flight, worker: WorkerOutcome, first_token_s: float) -> None:
        """A node is done with a task; its answer travels back."""
        assert flight.arm is not None, "a served task has an arm"
        down = self.nodes[flight.arm.node_id].path.down
        arrived_s = down.deliver(self._timeline.now_s, flight.down_bytes) + flight.hop_s
        ttft_s = 0.0
        if flight.task.kind is TaskKind.LLM:
            ttft_s = first_token_s + down.delay_s + flight.hop_s - flight.arrived_s
        self._timeline.at(arrived_s, self._arrived_back, (flight, flight.attempt, worker, ttft_s))

    def _arrived_back(self, back: tuple[Flight, int, WorkerOutcome, float]) -> None:
        flight, attempt, worker, ttft_s = back
        if not flight.over and attempt == flight.attempt:
            self._end(flight, OutcomeStatus.OK, worker, ttft_s)

    def _attempt_failed(self, flight: Flight, status: OutcomeStatus) -> None:
        assert flight.arm is not None, "an attempt has an arm"
        if flight.over:
            return
        begun = flight.first_token_s <= self._timeline.now_s
        if begun or flight.attempt >= self.settings.attempts:
            self._end(flight, status)
            return
        self._tell(self._outcome(flight, status))
        flight.avoid.append(flight.arm.node_id)
        self._place(flight)

    def _expire(self, flight: Flight) -> None:
        if flight.arm is not None:
            self.nodes[flight.arm.node_id].cancel(flight, flight.arm)
        self._end(flight, OutcomeStatus.DEADLINE_EXCEEDED)

    def _end(
        self, flight: Flight, status: OutcomeStatus, worker: WorkerOutcome | None = None, ttft_s: float = 0.0
    ) -> None:
        flight.over = True
        self.open_tasks -= 1
        outcome = self._outcome(flight, status, worker, ttft_s)
        if outcome.arm_id:
            self._tell(outcome)
        self._on_outcome(outcome)
        if not (self.open_tasks or self._more):
            self._timeline.at(self._timeline.now_s + self.settings.outcome_s, self._close, None)

    def _close(self, _: None) -> None:
        """The policy has heard of the last outcome; heartbeats and expired deadlines are not worth waiting for."""
        self._timeline.stop()

    def _tell(self, outcome: Outcome) -> None:
        self._timeline.at(self._timeline.now_s + self.settings.outcome_s, self._hear, outcome)

    def _hear(self, outcome: Outcome) -> None:
        self._dispatcher.ended(self._timeline.now_s, outcome)

    def _outcome(
        self, flight: Flight, status: OutcomeStatus, worker: WorkerOutcome | None = None, ttft_s: float = 0.0
    ) -> Outcome:
        arm, now_s = flight.arm, self._timeline.now_s
        joules_per_byte = self.nodes[arm.node_id].path.joules_per_byte if arm else 0.0
        down_bytes = flight.down_bytes if status is OutcomeStatus.OK else 0
        return Outcome(
            task_id=flight.task.task_id,
            arm_id=arm.arm_id if arm else "",
            node_id=arm.node_id if arm else "",
            status=status,
            finished_at_s=now_s,
            latency_s=now_s - flight.arrived_s,
            deadline_s=flight.task.deadline_s,
            ttft_s=ttft_s,
            gateway_s=flight.gateway_s,
            up_bytes=flight.up_bytes,
            down_bytes=down_bytes,
            transmission_joules=(flight.up_bytes + down_bytes) * joules_per_byte,
            quality=arm.quality if arm else 0.0,
            service_class=flight.task.service_class,
            worker=worker or NO_WORK,
        )

    # ------------------------------------------------------------------------------------------- heartbeats

    def _beat(self, _: None) -> None:
        now_s = self._timeline.now_s
        for node in self.nodes.values():
            if node.alive:
                self._dispatcher.reported(now_s, node.node, node.status())
                self._tell_link(node)
        self._end_slot(None)
        self._timeline.at(now_s + self.settings.heartbeat_s, self._beat, None)

    def _tell_link(self, node: SimNode) -> None:
        link, life = node.path.measured(), (node.node.node_id, node.node.incarnation)
        if link is not None and self._links.get(life) != link:
            self._links[life] = link
            self._dispatcher.measured(self._timeline.now_s, node.node.node_id, link)

    def _lapse(self, life: tuple[SimNode, str]) -> None:
        node, incarnation = life
        if node.node.incarnation == incarnation:
            self._dispatcher.lost(self._timeline.now_s, node.node.node_id)
