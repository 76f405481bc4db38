"""The oracle schedule: made with full knowledge of node states, link traces and answer lengths.

Tasks are placed in order of arrival. Each goes to an arm where it and all tasks placed there before meet their
deadlines; without such an arm it is refused. Several rules are tried and the best is kept. It is a heuristic, not an
optimum: it shows what can be reached, and the bound (`experiments.run.bounds`) shows what cannot. Jitter and shared
links are not modelled here; the simulator gives the final figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field

from experiments.plan.cell import PlannedCell
from experiments.run.bounds import Server, requests_of, servers_of
from simulator.requests import TaskRequest, answer_bytes
from skyshore.domain.node import Arm
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, capacity_of
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.scenario.files import read_trace
from skyshore.scenario.links import link_settings

PACES = (math.inf, 45.0, 40.0)
"""Rules that are tried: refuse a task that needs more tokens per second, because it would delay several others."""
ENOUGH = 0.97
"""Share of tasks placed beyond which no further rule is tried."""
JITTERS = 2.0
"""Standard deviations of a link's jitter added as a margin."""


@dataclass(slots=True)
class _LinkModel:
    """One node's link without its random part."""

    bucket: Bucket
    up_s: float
    """Propagation to the node, with room for jitter."""
    down_s: float
    down_bytes_per_s: float


@dataclass(slots=True)
class _Rows:
    """A language model on a node, with all rows placed so far."""

    batch: LlmBatch
    due_s: dict[str, float] = field(default_factory=dict)

    def advance(self, to_s: float) -> float:
        """Run the batch until `to_s`, or until a deadline is missed; returns the smallest slack in seconds."""
        slack_s = math.inf
        while slack_s >= 0 and (run := self.batch.running) is not None and run.end_s <= to_s:
            for row, _ in self.batch.end():
                if row.generated >= row.output_tokens:
                    slack_s = min(slack_s, self.due_s.pop(row.key) - run.end_s)
            self.batch.begin(run.end_s)
        return slack_s

    def forked(self) -> _Rows:
        """A copy, to try a placement on."""
        return _Rows(copy(self.batch), dict(self.due_s))

    def add(self, row: Row, due_s: float) -> bool:
        """Take a row at its arrival. False when there is no room."""
        if not self.batch.offer(row):
            return False
        self.due_s[row.key] = due_s
        self.batch.begin_or_shorten(row.arrived_s)
        return True


@dataclass(slots=True)
class _Slots:
    """A detector on a node: when each of its slots is free, and when the segments in it and before it are done."""

    free_s: list[float]


@dataclass(frozen=True, slots=True)
class _Option:
    """An arm that meets all deadlines."""

    rarity: float
    """Share of tasks that its engine can run; the engine with the smallest share is used first."""
    slack_s: float
    server: Server
    reached_s: float
    done_s: float

    @property
    def order(self) -> tuple[float, float]:
        """Sort key; the smallest is chosen."""
        return self.rarity, -self.slack_s


def rules(plan: PlannedCell) -> Iterator[dict[str, Arm]]:
    """Schedules to simulate, one per rule: arm by task; a task without an arm is refused.

    Raises:
        InvalidScenario: a profile or trace cannot be used.
    """
    scheduler = _OracleScheduler(plan)
    for pace in PACES if scheduler.generates else PACES[:1]:
        found = scheduler.placements(pace)
        yield found
        if len(found) >= ENOUGH * len(plan.schedule.arrivals):
            return


class _OracleScheduler:
    """Places the tasks of a plan with full knowledge of it."""

    def __init__(self, plan: PlannedCell) -> None:
        self._plan, self._requests = plan, requests_of(plan)
        self._servers = list(servers_of(plan))
        self.generates = any(isinstance(server.speed, LlmSpeed) for server in self._servers)
        users = {server.number: 0 for server in self._servers}
        for request in self._requests:
            for number in {server.number for server in self._servers if server.takes(request)}:
                users[number] += 1
        self._rarity: Mapping[int, float] = {number: count / len(self._requests) for number, count in users.items()}

    def placements(self, most_pace: float) -> dict[str, Arm]:
        """Arm by task, without tasks that need more than `most_pace` tokens per second or that no arm can take."""
        self._links = {server.arm.node_id: _link_model(self._plan, server.arm.node_id) for server in self._servers}
        self._engines = {server.number: _engine(server.speed) for server in self._servers}
        found = {}
        for request in self._requests:
            if request.arrival.output_tokens > most_pace * request.task.deadline_s:
                continue
            best = min(self._options(request), key=lambda option: option.order, default=None)
            if best is not None:
                self._take(request, best)
                found[request.task.task_id] = best.server.arm
        return found

    def _options(self, request: TaskRequest) -> Iterator[_Option]:
        for server in self._servers:
            if not server.takes(request) or server.alone_s(request) > request.task.deadline_s:
                continue
            sent_s, reached_s = self._sent(request, server, copy(self._links[server.arm.node_id].bucket))
            engine, due_s = self._engines[server.number], self._due(request, server)
            if isinstance(engine, _Rows):
                engine.advance(reached_s)
                tried = engine.forked()
                if not tried.add(_row(request, reached_s), due_s):
                    continue
                slack_s, done_s = tried.advance(math.inf), 0.0
            else:
                work_s = server.work_s(request)
                done_s = max(max(min(engine.free_s), reached_s) + work_s, sent_s + server.arm.frame_s)
                slack_s = due_s - done_s
            if slack_s >= 0:
                yield _Option(self._rarity[server.number], slack_s, server, reached_s, done_s)

    def _take(self, request: TaskRequest, option: _Option) -> None:
        engine = self._engines[option.server.number]
        self._sent(request, option.server, self._links[option.server.arm.node_id].bucket)
        if isinstance(engine, _Rows):
            engine.add(_row(request, option.reached_s), self._due(request, option.server))
        else:
            engine.free_s[engine.free_s.index(min(engine.free_s))] = option.done_s

    def _sent(self, request: TaskRequest, server: Server, bucket: Bucket) -> tuple[float, float]:
        """Times at which all bytes of the task are at the node, and at which the node starts."""
        leaves_s = request.arrival.t_intended_s + server.gateway_s
        up_s = self._links[server.arm.node_id].up_s
        sent_s = bucket.depart(leaves_s, request.bytes_to(server.arm)) + up_s
        return sent_s, sent_s if isinstance(server.speed, LlmSpeed) else min(sent_s, leaves_s + up_s)

    def _due(self, request: TaskRequest, server: Server) -> float:
        """Time at which the node must have finished."""
        link = self._links[server.arm.node_id]
        return (
            request.arrival.t_intended_s
            + request.task.deadline_s
            - link.down_s
            - answer_bytes(request.arrival) / link.down_bytes_per_s
        )


def _row(request: TaskRequest, reached_s: float) -> Row:
    prompt, answer = request.arrival.prompt_tokens, request.arrival.output_tokens
    return Row(request.task.task_id, prompt, answer, prompt + answer, reached_s)


def _engine(speed: LlmSpeed | VideoSpeed) -> _Rows | _Slots:
    return _Rows(LlmBatch(speed)) if isinstance(speed, LlmSpeed) else _Slots([0.0] * speed.slots)


def _link_model(plan: PlannedCell, node_id: str) -> _LinkModel:
    settings = link_settings(plan.scenario, node_id)
    up, down = (settings.up, settings.down) if settings is not None else (Direction(), Direction())
    trace = read_trace(plan.folder, up.trace) if up.trace else None
    return _LinkModel(
        Bucket(capacity_of(up, trace)),
        up.delay_s + JITTERS * up.jitter_s,
        down.delay_s + JITTERS * down.jitter_s,
        math.inf if down.trace else down.rate_bytes_per_s,
    )
