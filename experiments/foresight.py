"""A schedule made with everything known: every node's state, every link's trace, every answer's length.

Tasks are placed in order of arrival, each on an arm where it and all that are there already keep their deadlines, or on
none. Several rules are tried and the best kept, so what is found is no optimum: it shows what can be reached, as the
bound (`experiments.bounds`) shows what cannot. Jitter and shared links are not foreseen; the simulator judges what
comes of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field

from experiments.bounds import Server, flights_of, servers_of
from experiments.cell import Plan
from simulator.build import read_trace
from simulator.flight import Flight
from skyshore.domain.node import Arm
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, capacity_of
from skyshore.nodemodel.llm import LlmBatch, Row
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.scenario_links import link_settings

PACES = (math.inf, 45.0, 40.0)
"""Rules tried: refuse a task that needs more tokens a second than this; in a crowd it would cost several others."""
ENOUGH = 0.97
"""Share of tasks placed beyond which no further rule is tried."""
JITTERS = 2.0
"""Standard deviations of a link's jitter kept in hand."""


@dataclass(slots=True)
class _Way:
    """One node's link, as far as it can be foreseen."""

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
        """Run the batch until then, or until a deadline was missed; returns the least time by which one was kept."""
        slack_s = math.inf
        while slack_s >= 0 and (run := self.batch.running) is not None and run.end_s <= to_s:
            for row, _ in self.batch.end():
                if row.generated >= row.output_tokens:
                    slack_s = min(slack_s, self.due_s.pop(row.key) - run.end_s)
            self.batch.begin(run.end_s)
        return slack_s

    def forked(self) -> _Rows:
        """The same, to be tried out."""
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
    """An arm that would do."""

    rarity: float
    """Share of tasks that could use its engine: what few can use is taken first."""
    slack_s: float
    server: Server
    reached_s: float
    done_s: float

    @property
    def order(self) -> tuple[float, float]:
        """The least is chosen."""
        return self.rarity, -self.slack_s


def rules(plan: Plan) -> Iterator[dict[str, Arm]]:
    """Schedules worth a simulation, one a rule: arm by task, a task left out being refused.

    Raises InvalidScenario for a profile or trace that cannot be used.
    """
    foresight = _Foresight(plan)
    for pace in PACES if foresight.generates else PACES[:1]:
        found = foresight.placements(pace)
        yield found
        if len(found) >= ENOUGH * len(plan.schedule.arrivals):
            return


class _Foresight:
    """Everything known of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._flights = plan, flights_of(plan)
        self._servers = list(servers_of(plan))
        self.generates = any(isinstance(server.speed, LlmSpeed) for server in self._servers)
        users = {server.number: 0 for server in self._servers}
        for flight in self._flights:
            for number in {server.number for server in self._servers if server.takes(flight)}:
                users[number] += 1
        self._rarity: Mapping[int, float] = {number: count / len(self._flights) for number, count in users.items()}

    def placements(self, most_pace: float) -> dict[str, Arm]:
        """Arm by task; who needs more than `most_pace` tokens a second, or finds no arm that would do, is left out."""
        self._ways = {server.arm.node_id: _way(self._plan, server.arm.node_id) for server in self._servers}
        self._engines = {server.number: _engine(server.speed) for server in self._servers}
        found = {}
        for flight in self._flights:
            if flight.arrival.output_tokens > most_pace * flight.task.deadline_s:
                continue
            best = min(self._options(flight), key=lambda option: option.order, default=None)
            if best is not None:
                self._take(flight, best)
                found[flight.task.task_id] = best.server.arm
        return found

    def _options(self, flight: Flight) -> Iterator[_Option]:
        for server in self._servers:
            if not server.takes(flight) or server.alone_s(flight) > flight.task.deadline_s:
                continue
            sent_s, reached_s = self._sent(flight, server, copy(self._ways[server.arm.node_id].bucket))
            engine, due_s = self._engines[server.number], self._due(flight, server)
            if isinstance(engine, _Rows):
                engine.advance(reached_s)
                tried = engine.forked()
                if not tried.add(_row(flight, reached_s), due_s):
                    continue
                slack_s, done_s = tried.advance(math.inf), 0.0
            else:
                work_s = server.work_s(flight)
                done_s = max(max(min(engine.free_s), reached_s) + work_s, sent_s + server.arm.frame_s)
                slack_s = due_s - done_s
            if slack_s >= 0:
                yield _Option(self._rarity[server.number], slack_s, server, reached_s, done_s)

    def _take(self, flight: Flight, option: _Option) -> None:
        engine = self._engines[option.server.number]
        self._sent(flight, option.server, self._ways[option.server.arm.node_id].bucket)
        if isinstance(engine, _Rows):
            engine.add(_row(flight, option.reached_s), self._due(flight, option.server))
        else:
            engine.free_s[engine.free_s.index(min(engine.free_s))] = option.done_s

    def _sent(self, flight: Flight, server: Server, bucket: Bucket) -> tuple[float, float]:
        """When all of the task's bytes are at the node, and when the node starts on it."""
        leaves_s = flight.arrived_s + server.gateway_s
        up_s = self._ways[server.arm.node_id].up_s
        sent_s = bucket.depart(leaves_s, flight.bytes_to(server.arm)) + up_s
        return sent_s, sent_s if isinstance(server.speed, LlmSpeed) else min(sent_s, leaves_s + up_s)

    def _due(self, flight: Flight, server: Server) -> float:
        """When the node must be done with it."""
        way = self._ways[server.arm.node_id]
        return flight.arrived_s + flight.task.deadline_s - way.down_s - flight.down_bytes / way.down_bytes_per_s


def _row(flight: Flight, reached_s: float) -> Row:
    prompt, answer = flight.arrival.prompt_tokens, flight.arrival.output_tokens
    return Row(flight.task.task_id, prompt, answer, prompt + answer, reached_s)


def _engine(speed: LlmSpeed | VideoSpeed) -> _Rows | _Slots:
    return _Rows(LlmBatch(speed)) if isinstance(speed, LlmSpeed) else _Slots([0.0] * speed.slots)


def _way(plan: Plan, node_id: str) -> _Way:
    settings = link_settings(plan.scenario, node_id)
    up, down = (settings.up, settings.down) if settings is not None else (Direction(), Direction())
    trace = read_trace(plan.folder, up.trace) if up.trace else None
    return _Way(
        Bucket(capacity_of(up, trace)),
        up.delay_s + JITTERS * up.jitter_s,
        down.delay_s + JITTERS * down.jitter_s,
        math.inf if down.trace else down.rate_bytes_per_s,
    )
