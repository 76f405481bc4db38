"""Runs a simulation on the kernel: arrivals in, the ends of tasks out, batch by batch, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from simulator.build import Simulation
from simulator.compiled.energy import meter_joules
from simulator.compiled.fleet import Stand, stand_of
from simulator.compiled.kernel import advance, start
from simulator.compiled.layout import DECIDED, ENDED, EVENT, LLM, NONE, REQUEST, TASK, VIDEO, Records, Run
from simulator.compiled.timeline import PER_TASK, SERVERS
from simulator.flight import CHARACTERS_PER_TOKEN, answer_bytes, frames_offered
from simulator.node import ENERGY_SOURCE
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

BATCH = 8192
"""Requests handed over, and ends taken back, at a time."""
FIRST_ROOM = 1024
"""Tasks under way for which there is room at first; it doubles when they are more."""
KINDS = tuple(TaskKind)
STATUSES = (OutcomeStatus.OK, OutcomeStatus.FAILED, OutcomeStatus.REJECTED, OutcomeStatus.DEADLINE_EXCEEDED)
NO_WORK = WorkerOutcome()


class Requests(NamedTuple):
    """Arrivals in order, as records, and their names."""

    records: Records
    names: Sequence[str]


class CompiledRun:
    """One run. `batches` drives it; the figures beside it are those up to the last batch."""

    def __init__(self, simulation: Simulation) -> None:
        """The simulation must be one that `why_plain` has nothing against, and not have begun."""
        self._stand: Stand = stand_of(simulation)
        self._run = self._blank_run()
        self._classes: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._taken = 0
        self._digest = hashlib.sha256()
        self._endings: dict[tuple[int, int], str] = {}

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return float(self._run.clock[0]["now_s"])

    @property
    def digest(self) -> str:
        """As `CoreDispatcher.digest`."""
        return self._digest.hexdigest()

    def joules(self) -> dict[str, float]:
        """What each node drew so far."""
        fleet = self._stand.fleet
        return {name: meter_joules(self._run, fleet, number) for number, name in enumerate(self._stand.node_ids)}

    def requests(self, arrivals: Iterator[Arrival]) -> Iterator[Requests]:
        """Arrivals, batch by batch."""
        while some := list(islice(arrivals, BATCH)):
            rows = [record_of(arrival, self._group(arrival)) for arrival in some]
            yield Requests(np.array(rows, dtype=REQUEST), [arrival.request_id for arrival in some])

    def batches(self, requests: Iterator[Requests]) -> Iterator[Records]:
        """Run to the end; yields the ends of tasks (`ENDED`) as they come."""
        stand, clock = self._stand, self._run.clock
        todo, last = self._more(np.empty(0, dtype=REQUEST), requests)
        start(self._run, stand.fleet, todo)
        over = False
        while not over:
            over = bool(advance(self._run, stand.fleet, stand.mind, todo, last))
            self._tell_decisions()
            yield self._ended()
            if clock[0]["starved"]:
                stand.draw_ahead()
                clock[0]["starved"] = 0
            if not clock[0]["free"]:
                self._grow()
            if not last and clock[0]["next_request"] >= len(todo) - 1:
                todo, last = self._more(todo[clock[0]["next_request"] :], requests)
                clock[0]["next_request"] = 0

    def outcomes(self, ended: Records, arrivals: Sequence[Arrival]) -> Iterator[Outcome]:
        """Ends of tasks as the plain simulator tells them; `arrivals` are those of the whole run."""
        for row in ended.tolist():
            end = dict(zip(ENDED.names or (), row, strict=True))
            yield self._outcome(end, arrivals[end["number"]])

    # ------------------------------------------------------------------------------------------------- inside

    def _group(self, arrival: Arrival) -> int:
        return self._classes.setdefault(arrival.service_class, len(self._classes))

    def _more(self, rest: Records, requests: Iterator[Requests]) -> tuple[Records, bool]:
        batch = next(requests, None)
        if batch is None:
            return rest, True
        self._names.update(enumerate(batch.names, self._taken))
        self._taken += len(batch.names)
        return np.concatenate([rest, batch.records]), False

    def _tell_decisions(self) -> None:
        count = self._run.clock[0]["decided"]
        lines = [
            self._names[number] + (self._endings.get((arm, ties)) or self._ending(arm, ties))
            for number, arm, ties in self._run.decided[:count].tolist()
        ]
        self._digest.update("".join(lines).encode())
        self._run.clock[0]["decided"] = 0

    def _ending(self, arm: int, ties: int) -> str:
        """What follows the task's name in the line of a decision that is hashed."""
        text = "  0.0\n" if arm == NONE else f" {self._stand.arms[arm].arm_id} {1.0 / ties!r}\n"
        self._endings[arm, ties] = text
        return text

    def _ended(self) -> Records:
        count = self._run.clock[0]["ended"]
        ended = self._run.ended[:count].copy()
        for number in ended["number"].tolist():
            del self._names[number]
        self._run.clock[0]["ended"] = 0
        return ended

    def _blank_run(self) -> Run:
        servers = len(self._stand.fleet.servers)
        events = np.zeros(SERVERS + servers, dtype=EVENT)
        events["place"] = NONE
        blank = Run(
            clock=self._stand.clock,
            events=events,
            heap=np.zeros(SERVERS + servers, dtype=np.int64),
            tasks=np.zeros(0, dtype=TASK),
            free=np.zeros(0, dtype=np.int64),
            decided=np.zeros(BATCH, dtype=DECIDED),
            ended=np.zeros(BATCH, dtype=ENDED),
        )
        return _with_room(blank, FIRST_ROOM)

    def _grow(self) -> None:
        self._run = _with_room(self._run, len(self._run.tasks))

    def _outcome(self, end: dict[str, float], arrival: Arrival) -> Outcome:
        status = STATUSES[int(end["status"])]
        arm = self._stand.arms[int(end["arm"])] if end["arm"] != NONE else None
        worker = NO_WORK
        if status is OutcomeStatus.OK:
            llm = arrival.kind is TaskKind.LLM
            worker = WorkerOutcome(
                queue_s=end["queue_s"],
                prefill_s=end["prefill_s"],
                compute_s=end["compute_s"],
                prompt_tokens=arrival.prompt_tokens if llm else 0,
                output_tokens=arrival.output_tokens if llm else 0,
                frames=0 if llm else frames_offered(arrival),
                inference_joules=end["inference_joules"],
                idle_joules=end["idle_joules"],
                energy_source=ENERGY_SOURCE,
            )
        return Outcome(
            task_id=arrival.request_id,
            arm_id=arm.arm_id if arm else "",
            node_id=arm.node_id if arm else "",
            status=status,
            finished_at_s=end["finished_s"],
            latency_s=end["latency_s"],
            deadline_s=arrival.deadline_s,
            ttft_s=end["ttft_s"],
            gateway_s=self._stand.gateway_s,
            up_bytes=int(end["up_bytes"]),
            down_bytes=int(end["down_bytes"]),
            transmission_joules=end["transmission_joules"],
            quality=arm.quality if arm else 0.0,
            service_class=arrival.service_class,
            worker=worker,
        )


def record_of(arrival: Arrival, group: int) -> tuple[float | int, ...]:
    """One arrival as `REQUEST` has it; `group` numbers its service class."""
    return (
        arrival.t_intended_s,
        arrival.deadline_s,
        arrival.min_quality,
        LLM if arrival.kind is TaskKind.LLM else VIDEO,
        KINDS.index(arrival.kind),
        group,
        arrival.prompt_tokens,
        arrival.output_tokens,
        frames_offered(arrival),
        answer_bytes(arrival),
        arrival.prompt_tokens * CHARACTERS_PER_TOKEN,
    )


def _with_room(run: Run, more: int) -> Run:
    """The same run with room for so many more tasks."""
    had = len(run.tasks)
    events = np.zeros(more * PER_TASK, dtype=EVENT)
    events["place"] = NONE
    free = np.zeros(had + more, dtype=np.int64)
    count = int(run.clock[0]["free"])
    free[:count] = run.free[:count]
    free[count : count + more] = np.arange(had + more - 1, had - 1, -1)
    run.clock[0]["free"] = count + more
    return run._replace(
        events=np.concatenate([run.events, events]),
        heap=np.concatenate([run.heap, np.zeros(more * PER_TASK, dtype=np.int64)]),
        tasks=np.concatenate([run.tasks, np.zeros(more, dtype=TASK)]),
        free=free,
    )
