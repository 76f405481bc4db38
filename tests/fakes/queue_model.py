"""A small world for policies: first-come first-served nodes in virtual time, driving a real SchedulerCore.

Far simpler than `simulator/`, on purpose: it is a few dozen lines that can be checked by eye.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from skyshore.domain.node import Arm, Link, Node, NodeStatus, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.scheduling.actions import Dispatch, Reject
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.scheduling.events import (
    Event,
    LinkChanged,
    NodeReported,
    TaskArrived,
    TaskFailed,
    TaskFinished,
    Tick,
)
from tests.fakes.small_fleet import llm_arm, node

LINK = Link(up_bytes_per_s=12.5e6, rtt_s=0.005, joules_per_byte=1e-8)


@dataclass(frozen=True)
class TrueNode:
    """A node as it really is, beside what it says of itself."""

    node: Node
    capacity: int = 16
    slowness: float = 1.0
    """True work over stated work."""
    crowding: float = 0.0
    """Extra work per task already running."""
    jitter: float = 0.0
    """Sigma of the log-normal factor on work."""
    link: Link = LINK
    quality: float | None = None
    """True quality of answers; None for the arm's own word."""


@dataclass(frozen=True)
class QueueArrival:
    at_s: float
    task: Task
    profile: TaskProfile
    output_tokens: float = 0.0
    """True length of the answer, which the profile only expects."""


@dataclass
class QueueRun:
    outcomes: list[Outcome] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    dispatched: list[Dispatch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    end_s: float = 0.0

    @property
    def attainment(self) -> float:
        """Share of all tasks answered in time."""
        return sum(outcome.met_deadline for outcome in self.outcomes) / (len(self.outcomes) + len(self.rejected))

    @property
    def joules_per_met(self) -> float:
        """Transmission and inference joules of all tasks per task answered in time."""
        spent = sum(o.transmission_joules + o.worker.inference_joules for o in self.outcomes)
        return spent / max(sum(o.met_deadline for o in self.outcomes), 1)


class QueueModel:
    """Runs arrivals through a core until the last outcome is told."""

    def __init__(self, nodes: Sequence[TrueNode], settings: CoreSettings, seed: int, feedback_s: float = 0.05) -> None:
        self.core = SchedulerCore(settings)
        self.run = QueueRun()
        self._nodes = {true.node.node_id: true for true in nodes}
        self._running: dict[str, int] = dict.fromkeys(self._nodes, 0)
        self._queues: dict[str, deque[tuple[QueueArrival, Dispatch, float]]] = {name: deque() for name in self._nodes}
        self._rng = np.random.default_rng(seed)
        self._feedback_s = feedback_s
        self._heap: list[tuple[float, int, object]] = []
        self._order = count()
        self._open: dict[str, QueueArrival] = {}

    def play(self, arrivals: Iterable[QueueArrival]) -> QueueRun:
        for name, true in self._nodes.items():
            self._handle(NodeReported(0.0, true.node, self._status(name)))
            self._handle(LinkChanged(0.0, name, true.link))
        for arrival in arrivals:
            self._at(arrival.at_s, arrival)
            self._open[arrival.task.task_id] = arrival
        self._at(1.0, "beat")
        if self.core.tick_every_s < 1.0:
            self._at(self.core.tick_every_s, "tick")
        while self._heap:
            at_s, _, what = heapq.heappop(self._heap)
            self._step(at_s, what)
        return self.run

    def _step(self, at_s: float, what: object) -> None:
        self.run.end_s = at_s
        if isinstance(what, QueueArrival):
            self._handle(TaskArrived(at_s, what.task, what.profile))
        elif what == "beat":
            self._beat(at_s)
        elif what == "tick":
            self._handle(Tick(at_s))
            if self._open:
                self._at(at_s + self.core.tick_every_s, "tick")
        elif isinstance(what, Outcome):
            self.run.outcomes.append(what)
            end = TaskFinished if what.status is OutcomeStatus.OK else TaskFailed
            self._handle(end(at_s, what))
        elif isinstance(what, tuple):
            verb, *details = what
            getattr(self, verb)(at_s, *details)

    def _beat(self, at_s: float) -> None:
        for name, true in self._nodes.items():
            self._handle(NodeReported(at_s, true.node, self._status(name)))
        self._handle(Tick(at_s))
        if self._open:
            self._at(at_s + 1.0, "beat")

    def _handle(self, event: Event) -> None:
        self.run.events.append(event)
        for action in self.core.handle(event):
            if isinstance(action, Dispatch):
                self.run.dispatched.append(action)
                task_id = action.placement.task_id
                arrival = self._open[task_id]
                link = self._nodes[action.placement.arm.node_id].link
                link_s = link.rtt_s / 2 + self._bytes(arrival, action) / link.up_bytes_per_s
                self._at(event.at_s + link_s, ("_join", arrival, action))
            elif isinstance(action, Reject):
                self.run.rejected.append(action)
                del self._open[action.task_id]

    def _join(self, at_s: float, arrival: QueueArrival, action: Dispatch) -> None:
        name = action.placement.arm.node_id
        self._queues[name].append((arrival, action, at_s))
        self._begin(at_s, name)

    def _begin(self, at_s: float, name: str) -> None:
        true, queue = self._nodes[name], self._queues[name]
        while queue and self._running[name] < queue[0][1].placement.arm.slots:
            arrival, action, joined_s = queue.popleft()
            work_s = self._work(arrival, action) * true.slowness * (1 + true.crowding * self._running[name])
            work_s *= float(np.exp(self._rng.normal(0.0, true.jitter) - true.jitter**2 / 2)) if true.jitter else 1.0
            left_s = arrival.at_s + arrival.task.deadline_s - true.link.rtt_s / 2 - at_s
            self._running[name] += 1
            late = work_s > left_s
            work_s = min(work_s, max(left_s, 0.0))  # engines stop at the deadline
            self._at(at_s + work_s, ("_finish", arrival, action, (at_s - joined_s, work_s, late)))

    def _finish(
        self, at_s: float, arrival: QueueArrival, action: Dispatch, measured: tuple[float, float, bool]
    ) -> None:
        queued_s, work_s, late = measured
        placement, task = action.placement, arrival.task
        name = placement.arm.node_id
        true = self._nodes[name]
        self._running[name] -= 1
        self._begin(at_s, name)
        del self._open[task.task_id]
        finished_s = at_s + true.link.rtt_s / 2
        up_bytes = self._bytes(arrival, action)
        outcome = Outcome(
            task_id=task.task_id,
            arm_id=placement.arm.arm_id,
            node_id=name,
            status=OutcomeStatus.DEADLINE_EXCEEDED if late else OutcomeStatus.OK,
            finished_at_s=finished_s,
            latency_s=finished_s - arrival.at_s,
            deadline_s=task.deadline_s,
            up_bytes=int(up_bytes),
            transmission_joules=up_bytes * true.link.joules_per_byte,
            quality=true.quality if true.quality is not None else placement.arm.quality,
            service_class=task.service_class,
            worker=WorkerOutcome(
                queue_s=queued_s,
                compute_s=work_s,
                prompt_tokens=arrival.profile.prompt_tokens,
                output_tokens=int(arrival.output_tokens),
                inference_joules=placement.arm.busy_watts * work_s,
                idle_joules=true.node.idle_watts * work_s,
                energy_source="modelled:queue_model",
            ),
        )
        self._at(finished_s + self._feedback_s, outcome)

    def _work(self, arrival: QueueArrival, action: Dispatch) -> float:
        arm, profile = action.placement.arm, arrival.profile
        if arrival.task.kind is TaskKind.LLM:
            output_s = arrival.output_tokens / arm.decode_tokens_per_s
            return profile.prompt_tokens / arm.prefill_tokens_per_s + output_s
        return -(-profile.frame_count // arm.frame_stride) * arm.frame_s

    def _bytes(self, arrival: QueueArrival, action: Dispatch) -> float:
        arm, profile = action.placement.arm, arrival.profile
        if arrival.task.kind is TaskKind.LLM:
            return profile.input_bytes
        return -(-profile.frame_count // arm.frame_stride) * arm.bytes_per_frame

    def _status(self, name: str) -> NodeStatus:
        true = self._nodes[name]
        return NodeStatus(name, self._running[name], len(self._queues[name]), true.capacity)

    def _at(self, at_s: float, what: object) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), what))


def llm_arrivals(rate_per_s: float, number: int, seed: int, *, guess: float = 0.0) -> list[QueueArrival]:
    """Poisson arrivals as in the digest, part 5: 700 tokens in, 250 out on average, deadlines U[2, 6] s.

    `guess` is the sigma of the log-normal error of the expected answer length.
    """
    rng = np.random.default_rng(seed)
    at_s = np.cumsum(rng.exponential(1.0 / rate_per_s, number))
    prompt = rng.lognormal(np.log(700) - 0.18, 0.6, number)
    answer = rng.lognormal(np.log(250) - 0.18, 0.6, number)
    deadline = rng.uniform(2.0, 6.0, number)
    expected = answer * np.exp(guess * rng.normal(size=number))
    return [
        QueueArrival(
            float(at_s[i]),
            Task(f"t{i}", TaskKind.LLM, deadline_s=float(deadline[i])),
            TaskProfile(int(prompt[i]) + 1, round(float(expected[i]), 1) + 1, input_bytes=4 * int(prompt[i]) + 1000),
            float(answer[i]) + 1,
        )
        for i in range(number)
    ]


def digest_fleet() -> list[TrueNode]:
    """Five unequal edges and a cloud, after the digest's part 5; saturated by some 4.5 `llm_arrivals` a second.

    Edges are up to 40 % slower than they say; the cloud slows down as its slots fill.
    """

    def arm(name: str, speed: float, watts: float, **changes: object) -> Arm:
        return llm_arm(
            name,
            context_tokens=8192,
            prefill_tokens_per_s=3000 * speed,
            decode_tokens_per_s=110 * speed,
            busy_watts=watts,
            **changes,
        )

    edges = [
        TrueNode(node(f"edge{i}", arm(f"edge{i}", speed, watts, slots=1)), slowness=1.0 + 0.1 * i, jitter=0.15)
        for i, (speed, watts) in enumerate([(1.0, 50), (1.0, 50), (0.8, 35), (0.7, 30), (1.2, 70)])
    ]
    sky = node("cloud", arm("cloud", 1.64, 175.0, slots=6, quality=0.9), tier=Tier.CLOUD)
    far = Link(up_bytes_per_s=37.5e6, rtt_s=0.04, joules_per_byte=5e-8)
    return [*edges, TrueNode(sky, capacity=64, crowding=0.15, jitter=0.15, link=far)]
