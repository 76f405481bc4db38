"""Nodes that report, crash and come back, and what the scheduler makes of it."""

from __future__ import annotations

from simulator.ends import change_engine_pace, meter_joules, share_host
from simulator.placing import place_soon
from simulator.records import Plant, Run, View
from simulator.timeline import ENGINES, SERVED, cancel_event, release, task_event
from skyshore.links.meter import measured_bytes_per_s
from skyshore.nodemodel.energy import open_ledger
from skyshore.nodemodel.engine import clear
from skyshore.nodemodel.records import COUNT, FIRST
from skyshore.nodemodel.records import LLM as LLM_ENGINE
from skyshore.rules.heartbeat import join, leave, measured_link, note_status
from skyshore.rules.kernel import kernel
from skyshore.rules.records import KINDS, LLM, NONE, Record
from skyshore.rules.reserve import release as release_reservation


@kernel
def beat(run: Run, plant: Plant, view: View) -> None:
    """All nodes report their state and what was measured of their links."""
    for node in range(len(plant.states)):
        if plant.states[node].alive:
            report(plant, view, node)
            report_link(plant, view, node)


@kernel
def report(plant: Plant, view: View, node: int) -> None:
    """A node's heartbeat."""
    state, tasks, capacity, kv_used = plant.states[node], 0, 0, 0.0
    for number in range(state.first_engine, state.first_engine + state.engines):
        engine = plant.engines[number]
        tasks += engine.waiting[COUNT] + engine.working[COUNT]
        capacity += engine.room
        if engine.kind == LLM_ENGINE:
            kv_used = max(kv_used, engine.kv_reserved / engine.kv_tokens)
    note_status(view.nodes[node], float(tasks), float(max(capacity, 1)), kv_used, False)


@kernel
def report_link(plant: Plant, view: View, node: int) -> None:
    """What was measured on the bytes of a link; nothing until bytes went in both directions."""
    state = plant.states[node]
    up, down = plant.links.directions[state.up], plant.links.directions[state.down]
    if up.metered and down.metered and up.mean_delay_s != 0.0 and down.mean_delay_s != 0.0:
        rtt_s = up.mean_delay_s + down.mean_delay_s
        measured_link(view.nodes[node], measured_bytes_per_s(up), rtt_s, state.joules_per_byte)


@kernel
def boot(run: Run, plant: Plant, view: View, node: int) -> None:
    """A node joins, or comes back with empty engines. A scheduler that still knew it forgets its earlier life."""
    state, now_s = plant.states[node], run.clock[0].now_s
    if view.nodes[node].present:
        lose(run, view, node)
    state.alive, state.started_s = 1, now_s
    state.life += 1
    for number in range(state.first_engine, state.first_engine + state.engines):
        engine = plant.engines[number]
        clear(engine)
        engine.hindrance = 1.0
        change_engine_pace(run, plant, number)
    if state.host != NONE:
        plant.hosts[state.host].busy = NONE
        share_host(run, plant, node)
    open_ledger(plant.ledgers[node], now_s, 0.0)
    join(view.nodes[node])
    enter(view, state)
    report(plant, view, node)


@kernel
def enter(view: View, state: Record) -> None:
    """The arms of a node come last in the table of each kind."""
    for kind in range(KINDS):
        order = view.order[kind]
        for index in range(state.arms[kind]):
            order[0] += 1
            order[order[0]] = state.first_arm[kind] + index


@kernel
def lose(run: Run, view: View, node: int) -> None:
    """The scheduler forgets a node and the attempts that are in flight on it."""
    for number in range(len(run.attempts)):
        attempt = run.attempts[number]
        if attempt.in_flight and attempt.node == node:
            release_reservation(view.nodes[node], attempt)
            attempt.forgotten = 1
    leave(view.nodes[node])
    for kind in range(len(view.order)):
        order, kept = view.order[kind], 0
        for row in range(1, order[0] + 1):
            if view.arms[order[row]].node != node:
                kept += 1
                order[kept] = order[row]
        order[0] = kept


@kernel
def crash(run: Run, plant: Plant, view: View, node: int) -> None:
    """A node dies at once. Its tasks fail or, before their first token, go elsewhere, one after another."""
    state = plant.states[node]
    state.spent_joules += meter_joules(run, plant, node)
    state.alive = 0
    for number in range(state.first_engine, state.first_engine + state.engines):
        drop_cancelled(run, plant, number)
        clear(plant.engines[number])
        cancel_event(run, ENGINES + number)
    if state.host != NONE:
        share_host(run, plant, node)
    while True:
        first = next_lost(run, view, node)
        if first == NONE:
            return
        run.tasks[first].on_node = 0
        cancel_event(run, task_event(len(plant.engines), first, SERVED))
        run.tasks[first].lost = 1
        place_soon(run, first)


@kernel
def next_lost(run: Run, view: View, node: int) -> int:
    """The task that came to a dead node first, language tasks before the others; NONE if no task is on it."""
    best = NONE
    for number in range(len(run.tasks)):
        task = run.tasks[number]
        on_it = task.holds and task.on_node and view.arms[task.arm].node == node
        if on_it and (best == NONE or comes_before(run, number, best)):
            best = number
    return best


@kernel
def comes_before(run: Run, one: int, other: int) -> bool:
    """Order of the tasks of a node: by kind of engine, then by when they came."""
    left, right = run.tasks[one], run.tasks[other]
    if (left.kind == LLM) != (right.kind == LLM):
        return bool(left.kind == LLM)
    return bool(left.offer_turn < right.offer_turn)


@kernel
def drop_cancelled(run: Run, plant: Plant, number: int) -> None:
    """Rows that were cancelled and still in a batch need not be remembered any more."""
    engine = plant.engines[number]
    place = engine.working[FIRST]
    for _ in range(engine.working[COUNT]):
        following = run.after[place]
        if run.tasks[place].cancelled:
            release(run, place)
        place = following


@kernel
def drift(run: Run, plant: Plant, node: int, slowdown: float) -> None:
    """A node takes so many times as long for what it begins from now on; what it states stays as it was."""
    state = plant.states[node]
    for number in range(state.first_engine, state.first_engine + state.engines):
        engine = plant.engines[number]
        engine.slowdown = slowdown
        if engine.kind == LLM_ENGINE and state.alive:
            change_engine_pace(run, plant, number)


@kernel
def lapse(run: Run, view: View, node: int) -> None:
    """The lease of a silent node ran out."""
    if view.nodes[node].present:
        lose(run, view, node)


@kernel
def drawn_joules(run: Run, plant: Plant, node: int) -> float:
    """Energy that a node drew so far, in all its lives."""
    state = plant.states[node]
    return float(state.spent_joules + (meter_joules(run, plant, node) if state.alive else 0.0))
