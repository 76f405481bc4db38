"""Runs a fleet in virtual time: hands requests to the kernel, asks the policy where it is Python, reports outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import numpy as np

from simulator import fleet as fleet_kernels
from simulator import kernel, placing, room
from simulator.garbage import rare_collections
from simulator.outcomes import Outcomes
from simulator.plant import FleetRecords, NodePlan
from simulator.policy import FIRST_ROOM, PolicyDriver
from simulator.records import ATTEMPTS, ENDED, REQUEST
from simulator.requests import record_values
from simulator.timeline import CALL, plan_at_turn
from simulator.timeline import release as timeline_release
from skyshore.domain.outcome import Outcome
from skyshore.links.delivery import draw_ahead
from skyshore.rules.kernel import entry
from skyshore.rules.records import NONE, Records, fields_of, get, put, records_of
from skyshore.rules.reserve import GRACE_S
from skyshore.rules.reward import Rewards
from skyshore.workload.arrival import Arrival

BATCH = 8192
"""Requests handed over, and ends taken back, at a time."""
CONSTANTS = ("gateway_s", "hop_s", "outcome_s", "heartbeat_s", "attempts", "grace_s")
"""Settings that the kernel needs."""


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """Constants of a run."""

    gateway_s: float = 0.003
    """From arrival to dispatch: profiling, deciding, the hops between."""
    hop_s: float = 0.0
    """Between gateway and node beyond the link, each way: remote calls and the client's own hops."""
    outcome_s: float = 0.02
    """From the end of a task to the policy's knowing of it."""
    heartbeat_s: float = 1.0
    lease_s: float = 3.0
    """A silent node is dropped after this long."""
    attempts: int = ATTEMPTS
    """Nodes tried before a task fails; `ATTEMPTS` at most."""
    grace_s: float = GRACE_S
    overheads: Iterator[tuple[float, float]] | None = None
    """Without end: `gateway_s` and `hop_s` of one request after the other, in place of the constants."""


class Simulation:
    """One run. Every task ends in exactly one outcome."""

    def __init__(
        self,
        plans: Sequence[NodePlan],
        policy: PolicyDriver,
        rewards: Rewards,
        settings: SimulationSettings | None = None,
        *,
        contention: float = 0.0,
        arrays: bool = False,
        largest_bytes: float = 16e6,
    ) -> None:
        """`arrays`: run machine code (numba must be installed); else the same functions as plain Python."""
        self.settings, self.arrays = settings or SimulationSettings(), arrays
        if self.settings.attempts > ATTEMPTS:
            raise ValueError(f"attempts must be at most {ATTEMPTS}, not {self.settings.attempts}")
        self.fleet = FleetRecords(plans, contention, largest_bytes, rewards)
        self.numbers = {plan.node_id: number for number, plan in enumerate(plans)}
        self.policy = policy
        policy.attach(self)
        self.plant = self.fleet.plant(0, arrays=arrays)
        self.view = self.fleet.view(arrays=arrays)
        constants = {name: getattr(self.settings, name) for name in CONSTANTS}
        constants |= {"slot_s": policy.slot_s, "stepping": int(policy.shows_decisions)}
        constants |= {"slot_room": kernel.SMALL_SLOT * policy.ends_slots, "plans_slots": int(policy.plans_slots)}
        engines = len(self.fleet.engine_records)
        self.run_records = room.blank_run(constants, engines, self.fleet.most_slots, arrays=arrays)
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._digest = hashlib.sha256()
        self._lines: dict[tuple[int, float], str] = {}
        self._names: dict[int, str] = {}
        self._ended_early: list[int] = []
        """Tasks whose deadline passed before the end of their slot: they are still decided on."""
        self._taken = 0
        self._entries: dict[Callable[..., Any], Callable[..., Any]] = {}
        self.outcomes = Outcomes(self.fleet.arms)
        self._grow(FIRST_ROOM)  # of which the policy knows
        draw_ahead(self.plant.links, self.fleet.rngs)

    # ------------------------------------------------------------------------------------------------ use

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return float(get(self.clock, "now_s"))

    @property
    def events(self) -> int:
        """Events that happened so far."""
        return int(get(self.clock, "events"))

    @property
    def clock(self) -> Any:
        """The CLOCK."""
        return self.run_records.clock[0]

    @property
    def digest(self) -> str:
        """Hex SHA-256 over task, arm and propensity of all decisions so far."""
        return self._digest.hexdigest()

    def joules(self) -> dict[str, float]:
        """Joules of each node in total, assigned to tasks or not."""
        drawn = self._kernel(fleet_kernels.drawn_joules)
        return {name: float(drawn(self.run_records, self.plant, number)) for name, number in self.numbers.items()}

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        """Call something at a time of the run; a time that has passed means now."""
        turn = int(get(self.clock, "turns")) + 1
        put(self.clock, {"turns": turn})
        heappush(self._calls, (max(time_s, self.now_s), turn, call))
        self._plan_call()

    def crash(self, node_id: str) -> None:
        """Stop a node at once; it is dropped when its lease has run out. Has no effect on a stopped node."""
        number = self.numbers[node_id]
        state = self.plant.states[number]
        if get(state, "alive"):
            life = get(state, "life")
            self.at(self.now_s + self.settings.lease_s, lambda: self._lapse(number, life))
            self._kernel(fleet_kernels.crash)(self.run_records, self.plant, self.view, number)

    def boot(self, node_id: str) -> None:
        """Start a node again, with empty engines. Has no effect on a live node."""
        number = self.numbers[node_id]
        if not get(self.plant.states[number], "alive"):
            self._kernel(fleet_kernels.boot)(self.run_records, self.plant, self.view, number)
            self.policy.fleet_changed()

    def drift(self, node_id: str, slowdown: float) -> None:
        """Work that a node begins from now on takes `slowdown` times as long; its stated speeds stay."""
        self._kernel(fleet_kernels.drift)(self.run_records, self.plant, self.numbers[node_id], slowdown)

    def tasks_on(self, node_id: str) -> list[str]:
        """Names of the tasks that are on a node now."""
        number = self.numbers[node_id]
        return [
            self._names[get(task, "number")]
            for task in self.run_records.tasks
            if get(task, "holds") and get(task, "on_node") and get(self.view.arms[get(task, "arm")], "node") == number
        ]

    def stop(self) -> None:
        """End the run after the event under way."""
        put(self.clock, {"stopped": 1})

    def run(self, arrivals: Iterable[Arrival], on_outcome: Callable[[Outcome], None]) -> None:
        """Run to the end; `on_outcome` is given every outcome."""
        held: dict[int, Arrival] = {}

        def taken(number: int, arrival: Arrival) -> None:
            held[number] = arrival

        for ended in self.run_batches(self.requests(arrivals, taken)):
            for values in ended.tolist() if self.arrays else ended:
                end = self.outcomes.end(values)
                on_outcome(self.outcomes.outcome(end, held.pop(end["number"])))

    def requests(
        self, arrivals: Iterable[Arrival], taken: Callable[[int, Arrival], None] | None = None
    ) -> Iterator[tuple[Records, list[str]]]:
        """Arrivals as REQUEST records with their names, batch by batch; `taken` is given each and its number."""
        stream, number, settings = iter(arrivals), 0, self.settings
        while some := list(islice(stream, BATCH)):
            values = []
            for arrival in some:
                overhead = next(settings.overheads) if settings.overheads else (settings.gateway_s, settings.hop_s)
                values.append(record_values(arrival, self.policy.group(arrival), *overhead))
                if taken is not None:
                    taken(number, arrival)
                self.policy.taken(number, arrival)
                number += 1
            yield records_of(REQUEST, values, arrays=self.arrays), [arrival.request_id for arrival in some]

    def run_batches(self, batches: Iterator[tuple[Records, list[str]]]) -> Iterator[Records]:
        """Run to the end; yields the ends of tasks (`ENDED`) as they come."""
        todo, last = self._more(records_of(REQUEST, [], arrays=self.arrays), batches)
        with rare_collections():
            self._kernel(kernel.start)(self.run_records, self.plant, self.view, todo)
            self.policy.fleet_changed()
            advance, over = self._kernel(kernel.advance), False
            while not over:
                over = bool(advance(self.run_records, self.plant, self.view, self.policy.state, todo, last))
                clock = fields_of(self.clock)
                if clock["decided"]:
                    self._note_decisions()
                if clock["placed"] != NONE:  # before its end, if it was refused
                    put(self.clock, {"placed": NONE})
                    self.policy.show_decision(clock["placed"])
                if clock["ended"]:
                    yield self._taken_back(clock["ended"])
                if not over:
                    self._act(clock)
                    if not last and clock["next_request"] >= len(todo) - 1:
                        todo, last = self._more(todo[clock["next_request"] :], batches)
                        put(self.clock, {"next_request": 0})
        self._calls.clear()  # they hold this run

    # --------------------------------------------------------------------------------------------- inside

    def _act(self, clock: Mapping[str, Any]) -> None:
        """Whatever the kernel returned for."""
        if clock["asked"] != NONE:
            self.policy.decide(clock["asked"])
            put(self.clock, {"asked": NONE, "answered": clock["asked"]})
            return
        if clock["reported"] != NONE:
            put(self.clock, {"reported": NONE})
            self.policy.update(clock["reported"])
        if clock["called"]:
            put(self.clock, {"called": 0})
            self._make_call()
        if clock["slot_over"]:
            put(self.clock, {"slot_over": 0})
            self._end_slot()
        if clock["free"] == 0:
            self._grow(len(self.run_records.tasks))
        if self.plant.links.low[0]:
            draw_ahead(self.plant.links, self.fleet.rngs)
        self.run_records = room.with_heap_room(self.run_records)

    def _end_slot(self) -> None:
        """Place what the slot gathered, nearest deadline first; each sees the room that the ones before it took."""
        waiting, time_left_s = self._gathered(), self._kernel(placing.time_left_s)
        self.run_records.gathered[0] = 0
        waiting.sort(key=lambda number: float(time_left_s(self.run_records, number)))
        self.policy.plan(waiting)
        for number in waiting:
            self._kernel(kernel.decide_gathered)(self.run_records, self.plant, self.view, self.policy.state, number)
            if get(self.clock, "asked") != NONE:
                put(self.clock, {"asked": NONE})
                self.policy.decide(number)
                self._kernel(kernel.carry_out)(self.run_records, self.plant, self.view, number)
            if get(self.clock, "placed") != NONE:
                put(self.clock, {"placed": NONE})
                self.policy.show_decision(number)
            self._kernel(timeline_release)(self.run_records, number)
            self._note_decisions()
            if self.plant.links.low[0]:
                draw_ahead(self.plant.links, self.fleet.rngs)

    def _gathered(self) -> list[int]:
        """Tasks that wait for the end of their slot."""
        line = self.run_records.gathered
        return [int(number) for number in line[1 : int(line[0]) + 1]]

    def _make_call(self) -> None:
        """Make the first call. One at a time: other events of this time may come before the next."""
        heappop(self._calls)[2]()
        self._plan_call()

    def _plan_call(self) -> None:
        if self._calls:
            time_s, turn, _ = self._calls[0]
            self._kernel(plan_at_turn)(self.run_records, CALL, time_s, turn)

    def _lapse(self, number: int, life: int) -> None:
        if get(self.plant.states[number], "life") == life:
            self._kernel(fleet_kernels.lapse)(self.run_records, self.view, number)
            self.policy.fleet_changed()

    def _kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel in the form that fits the records."""
        if not self.arrays:
            return function
        if function not in self._entries:
            self._entries[function] = entry(function)
        return self._entries[function]

    def _more(self, rest: Records, batches: Iterator[tuple[Records, list[str]]]) -> tuple[Records, bool]:
        batch = next(batches, None)
        if batch is None:
            return rest, True
        records, names = batch
        self._names.update(enumerate(names, self._taken))
        self._taken += len(names)
        return np.concatenate([rest, records]) if self.arrays else [*rest, *records], False

    def _taken_back(self, count: int) -> Records:
        put(self.clock, {"ended": 0})
        ended = self.run_records.ended[:count]
        numbers = ended["number"].tolist() if self.arrays else [end.number for end in ended]
        waiting = {get(self.run_records.tasks[number], "number") for number in self._gathered()}
        early, self._ended_early = [*self._ended_early, *numbers], []
        for number in early:
            if number in waiting:
                self._ended_early.append(number)
            else:
                self._forget(number)
        if self.arrays:
            return ended.copy()
        return [tuple(getattr(end, name) for name in ENDED.names or ()) for end in ended]

    def _forget(self, number: int) -> None:
        del self._names[number]
        self.policy.forget(number)

    def _note_decisions(self) -> None:
        count = get(self.clock, "decided")
        put(self.clock, {"decided": 0})
        notes = self.run_records.decided[:count]
        values = notes.tolist() if self.arrays else [(note.propensity, note.number, note.arm) for note in notes]
        lines = [
            self._names[number] + (self._lines.get((arm, chance)) or self._line(arm, chance))
            for chance, number, arm in values
        ]
        self._digest.update("".join(lines).encode())

    def _line(self, arm: int, propensity: float) -> str:
        """What follows the name of the task in the line of a decision that is hashed."""
        text = "  0.0\n" if arm == NONE else f" {self.fleet.arms[arm].arm_id} {propensity!r}\n"
        if len(self._lines) < BATCH:
            self._lines[arm, propensity] = text
        return text

    def _grow(self, more: int) -> None:
        """Make room for so many more tasks."""
        self.run_records = room.with_tasks(self.run_records, more)
        self.plant = self.plant._replace(unpaid_after=room.extended(self.plant.unpaid_after, more))
        if len(self.run_records.tasks) > FIRST_ROOM:
            self.policy.make_room(len(self.run_records.tasks))
