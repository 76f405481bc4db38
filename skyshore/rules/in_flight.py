"""Attempts that were placed and whose end has not been reported, node by node.

They give the time when a node becomes idle, the number of deadlines that one more task would break there, and the times
when its engines and its link are free. Tasks on a node share its work or wait for one another, so a new task delays
them all. The learned delay is `stated service · u₁ / slots` seconds for a whole stay. The prior curve of
`skyshore.rules.miss_risk` gives the probability that this breaks a deadline, from the slack of the task in its own σ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from skyshore.rules.engine_queue import ENGINE, join_engine, leave_engine
from skyshore.rules.kernel import kernel
from skyshore.rules.miss_risk import first_chance
from skyshore.rules.records import KINDS, NONE, Integers, Record, Records, dtype_of, integers, rows
from skyshore.rules.uplink import (
    POOL,
    SENDING,
    UPLINK_FIELDS,
    add_free,
    confirm_bytes,
    note_late_bytes,
    send_bytes,
)

GONE_S = 5.0
"""An attempt without a report is dropped this long after its deadline."""
SAFE_SIGMAS = 8.0
"""A task with a slack of this many σ is assumed to meet its deadline."""
LEAST_LATE_SHARE = 0.5
"""A task that was given up counts as a sample of the link only if sending took this share of its predicted latency."""
FIRST_ROOM = 16
NODE_LOAD = dtype_of(
    f"task_seconds at_s ends_at_s broken {UPLINK_FIELDS}", "tasks first last sendings first_sending last_sending"
)
"""A node: the integral of its tasks over time as of `at_s`, when its last task is expected to end, how many deadlines
one more would break, its link, and its lists of attempts in flight and of bytes on their way."""
IN_FLIGHT = dtype_of(
    "placed_at_s ends_at_s deadline_at_s sigma_s delay_s spare chance sent_s start_s work_s queue_s ready_at_s "
    "upto_bytes task_seconds",
    "task kind serial node engine used queued previous next engine_previous engine_next",
)
"""One attempt in flight. `ends_at_s` as predicted when placed, `sigma_s` its spread, `delay_s` what one more task would
add if it stayed as long. `spare`: slack before the deadline in σ, `chance`: the prior chance of a miss. `sent_s`:
seconds from placing until its bytes are there; `start_s`: until its engine is free too; `queue_s`: of others' tasks
before it; `work_s`: of its engine alone. `node` and `engine` are places in the tables (`place_of`), `engine` NONE for
one that serves several at once."""
FLIGHT_POOL, SENDING_POOL = 0, 1


class InFlightState(NamedTuple):
    """All attempts in flight."""

    nodes: Records
    """NODE_LOAD by `place_of(kind, node)`."""
    engines: Records
    """ENGINE by `place_of(kind, engine)`."""
    flights: Records
    """Pool of IN_FLIGHT."""
    sendings: Records
    """Pool of SENDING."""
    pools: Records
    """Two POOL rows."""
    flight_of: Integers
    """By `place_of(kind, task)`: the last attempt of a task, if `find_flight` confirms it."""
    half: float
    """0.5; see `add_rate_sample`."""


def in_flight_state() -> InFlightState:
    """An empty state in lists, with room for a few attempts."""
    room = FIRST_ROOM * KINDS
    state = InFlightState(
        nodes=rows(NODE_LOAD, room, arrays=False),
        engines=rows(ENGINE, room, arrays=False),
        flights=rows(IN_FLIGHT, 2 * FIRST_ROOM, arrays=False),
        sendings=rows(SENDING, 4 * FIRST_ROOM, arrays=False),
        pools=rows(POOL, 2, arrays=False),
        flight_of=integers(room, arrays=False),
        half=0.5,
    )
    blank_nodes(state.nodes, 0)
    add_free(state.flights, state.pools, FLIGHT_POOL, 0)
    add_free(state.sendings, state.pools, SENDING_POOL, 0)
    return state


@kernel
def place_of(kind: int, number: int) -> int:
    """Place of an arm, engine, node or task in a table: those of all kinds of task take turns."""
    return number * KINDS + kind


@kernel
def blank_nodes(nodes: Records, start: int) -> None:
    """Set the rows from `start` on to nodes to which nothing was sent."""
    for index in range(start, len(nodes)):
        nodes[index].arrived_at_s = nodes[index].seen_at_s = -math.inf


@kernel
def find_flight(state: InFlightState, kind: int, task: int, serial: int) -> int:
    """The attempt in flight of a task; NONE if it is not known."""
    index = state.flight_of[place_of(kind, task)]
    flight = state.flights[index]
    known = flight.used == 1 and flight.kind == kind and flight.task == task and flight.serial == serial
    return int(index) if known else NONE


@kernel
def take_flight(state: InFlightState, now_s: float) -> int:
    """Take an unused row. If there is none, drop the attempt with the earliest deadline and all that are overdue.

    There are two rows per task under way, so this happens only if many attempts were never reported.
    """
    pool, flights = state.pools[FLIGHT_POOL], state.flights
    if pool.free == 0:
        due_first = 0
        for index in range(len(flights)):
            if flights[index].deadline_at_s < flights[due_first].deadline_at_s:
                due_first = index
        drop_flight(state, due_first, now_s, False)
        for index in range(len(flights)):
            if flights[index].used == 1 and flights[index].deadline_at_s + GONE_S < now_s:
                drop_flight(state, index, now_s, False)
    index = pool.first
    flight = flights[index]
    pool.first, pool.free, flight.used = flight.next, pool.free - 1, 1
    return int(index)


@kernel
def release_flight(state: InFlightState, index: int, now_s: float, answered: bool) -> None:
    """Remove an attempt from its node and engine. Its row stays readable until it is used again."""
    flights, pool = state.flights, state.pools[FLIGHT_POOL]
    flight = flights[index]
    node = state.nodes[flight.node]
    if flight.engine != NONE:
        leave_engine(state.engines, flights, index, now_s, answered)
    if node.first == index:
        node.first = flight.next
    else:
        flights[flight.previous].next = flight.next
    if node.last == index:
        node.last = flight.previous
    else:
        flights[flight.next].previous = flight.previous
    node.tasks -= 1
    flight.used, flight.next, pool.first, pool.free = 0, pool.first, index, pool.free + 1


@kernel
def integrate_tasks(node: Record, now_s: float) -> None:
    """Bring the integral of the node's tasks up to `now_s`."""
    node.task_seconds += node.tasks * max(now_s - node.at_s, 0.0)
    node.at_s = max(now_s, node.at_s)


@kernel
def drop_flight(state: InFlightState, index: int, now_s: float, answered: bool) -> float:
    """An attempt ended. Returns the mean number of others on its node over its stay; NaN for a stay of no time."""
    flight = state.flights[index]
    node = state.nodes[flight.node]
    integrate_tasks(node, now_s)
    release_flight(state, index, now_s, answered)
    assess_node(node, state.flights, now_s)
    stay_s = now_s - flight.placed_at_s
    if stay_s > 0:
        return float((node.task_seconds - flight.task_seconds) / stay_s - 1.0)
    return math.nan


@kernel
def drop_gone(state: InFlightState, node: Record, now_s: float) -> None:
    """Drop those attempts of a node whose end was not reported in time."""
    index = node.first
    for _ in range(node.tasks):
        behind = state.flights[index].next
        if state.flights[index].deadline_at_s + GONE_S < now_s:
            release_flight(state, index, now_s, False)
        index = behind


@kernel
def add_flight(state: InFlightState, index: int, now_s: float, up_bytes: float, stated_s_per_byte: float) -> None:
    """Put a filled row on its node, its engine and its link."""
    flights = state.flights
    flight = flights[index]
    node = state.nodes[flight.node]
    drop_gone(state, node, now_s)
    integrate_tasks(node, now_s)
    flight.task_seconds = node.task_seconds
    flight.upto_bytes = send_bytes(node, state.sendings, state.pools[SENDING_POOL], now_s, up_bytes, stated_s_per_byte)
    flight.ready_at_s = now_s + flight.sent_s
    flight.spare = (flight.deadline_at_s - flight.ends_at_s) / flight.sigma_s
    flight.chance = first_chance(flight.spare)
    if flight.engine != NONE:
        join_engine(state.engines, flights, index)
    if node.tasks == 0:
        node.first = index
    else:
        flight.previous = node.last
        flights[node.last].next = index
    node.last, node.tasks = index, node.tasks + 1
    state.flight_of[place_of(flight.kind, flight.task)] = index
    assess_node(node, flights, now_s)


@kernel
def assess_node(node: Record, flights: Records, now_s: float) -> None:
    """When the last of a node's tasks is expected to end, and how many deadlines one more would break."""
    ends_at_s = broken = 0.0
    index = node.first
    for _ in range(node.tasks):
        flight = flights[index]
        index = flight.next
        ends_at_s = max(ends_at_s, flight.ends_at_s)
        if flight.delay_s == 0.0:
            continue
        left = (flight.ends_at_s - now_s) / (flight.ends_at_s - flight.placed_at_s)
        later = min(max(left, 0.0), 1.0) * flight.delay_s / flight.sigma_s
        if flight.spare - later < SAFE_SIGMAS:
            broken += first_chance(flight.spare - later) - flight.chance
    node.ends_at_s, node.broken = ends_at_s, broken


@kernel
def learn_upload(state: InFlightState, flight: Record, attempt: Record, predicted_s: float) -> None:
    """Learn from an outcome when the bytes of a task had left at the latest, or that they had not left."""
    node, sendings, pool = state.nodes[flight.node], state.sendings, state.pools[SENDING_POOL]
    stated_s_per_byte = 1.0 / attempt.up_bytes_per_s
    round_trip_s = attempt.transmission_s - attempt.up_bytes * stated_s_per_byte
    computed_s = attempt.prefill_s + attempt.compute_s if attempt.answered else flight.work_s
    after_s = computed_s + round_trip_s + attempt.gateway_s + attempt.waited_s
    left_at_s = attempt.decided_s + max(attempt.measured_s - after_s, 0.0)
    if attempt.answered:
        confirm_bytes(node, sendings, pool, state.half, flight.upto_bytes, left_at_s, computed_s, stated_s_per_byte)
    elif flight.sent_s > LEAST_LATE_SHARE * predicted_s:  # otherwise the engine is more likely to be the cause
        note_late_bytes(node, sendings, state.half, flight.upto_bytes, left_at_s, stated_s_per_byte)
