"""At the node and back: a task is accepted or refused, served and ended, and the policy gets its outcome."""

from __future__ import annotations

from simulator.placing import place_soon
from simulator.records import ATTEMPTS, Plant, Run, View
from simulator.timeline import (
    BACK,
    CLOSE,
    DEADLINE,
    ENGINES,
    REACH,
    REPORTED,
    SERVED,
    cancel_event,
    hold,
    plan,
    release,
    task_event,
)
from skyshore.links.delivery import deliver
from skyshore.nodemodel.batching import begin_iterations, begin_or_shorten, end_iterations, run_end_s, shorten
from skyshore.nodemodel.clips import strided
from skyshore.nodemodel.energy import close_account, modelled_joules, open_account
from skyshore.nodemodel.engine import begin_segment, cancel, change_pace, end_segment, hindrance, offer, segment_work_s
from skyshore.nodemodel.records import LLM as LLM_ENGINE
from skyshore.rules.choose import learn
from skyshore.rules.kernel import kernel
from skyshore.rules.link_guess import guess_link
from skyshore.rules.records import CANCELLED, EXPIRED, FAILED, LLM, NONE, OK, REJECTED, Record
from skyshore.rules.reserve import mark_full
from skyshore.rules.reserve import release as release_reservation
from skyshore.rules.reward import note_reward


@kernel
def meter_joules(run: Run, plant: Plant, node: int) -> float:
    """Joules that a node drew since it last started."""
    state, now_s = plant.states[node], run.clock[0].now_s
    busy = modelled_joules(plant.engines, state.first_engine, state.engines, run.tasks, run.after, now_s)
    return float(state.idle_watts * (now_s - state.started_s) + busy)


@kernel
def reach(run: Run, plant: Plant, view: View, number: int) -> None:
    """The first bytes of a task are at its node."""
    task, now_s = run.tasks[number], run.clock[0].now_s
    arm, node = plant.arms[task.arm], view.arms[task.arm].node
    state, engine = plant.states[node], plant.engines[arm.engine]
    if not state.alive:
        if attempt_failed(run, plant, view, number, FAILED):
            place_soon(run, number)
        return
    if task.kind != LLM:
        # Work overlaps the upload, but the last frame is worked on after it has come.
        task.work_s = segment_work_s(engine, strided(task.frames, arm.frame_stride), arm.frame_s)
        task.ready_s = task.sent_s + arm.frame_s
    if not offer(engine, run.tasks, run.after, number):
        if attempt_failed(run, plant, view, number, REJECTED):
            place_soon(run, number)
        return
    task.on_node, task.offered_s, task.offer_turn, task.first_token_s = 1, now_s, run.clock[0].events, 0.0
    if task.kind == LLM:
        if begin_or_shorten(engine, run.tasks, run.after, now_s):
            plan(run, ENGINES + arm.engine, run_end_s(engine))
        share_host(run, plant, node)
    else:
        begin_segments(run, plant, arm.engine)
    joules = meter_joules(run, plant, node)
    open_account(plant.ledgers[node], engine, run.tasks, plant.unpaid_after, number, now_s, joules)


@kernel
def begin_segments(run: Run, plant: Plant, engine: int) -> None:
    """Move waiting segments into free slots."""
    now_s = run.clock[0].now_s
    while True:
        number = begin_segment(plant.engines[engine], run.tasks, run.after, now_s)
        if number == NONE:
            return
        task = run.tasks[number]
        plan(run, task_event(len(plant.engines), number, SERVED), max(now_s + task.work_s, task.ready_s))


@kernel
def share_host(run: Run, plant: Plant, node: int) -> None:
    """If nodes share a machine, the engines of each take longer while those of others work."""
    host = plant.states[node].host
    if host == NONE:
        return
    busy = 0
    for number in range(len(plant.engines)):
        engine = plant.engines[number]
        if engine.kind == LLM_ENGINE and shares(plant, engine, host):
            busy += engine.run_open
    if busy == plant.hosts[host].busy:
        return
    plant.hosts[host].busy = busy
    for number in range(len(plant.engines)):
        engine = plant.engines[number]
        factor = hindrance(plant.hosts[host].contention, busy - engine.run_open)
        if engine.kind == LLM_ENGINE and shares(plant, engine, host) and factor != engine.hindrance:
            engine.hindrance = factor
            change_engine_pace(run, plant, number)


@kernel
def shares(plant: Plant, engine: Record, host: int) -> bool:
    """Whether an engine runs on a shared machine now."""
    state = plant.states[engine.node]
    return bool(state.alive and state.host == host)


@kernel
def engine_done(run: Run, plant: Plant, number: int) -> None:
    """A run of iterations is over: the next one begins, and the rows that are done leave."""
    engine, now_s = plant.engines[number], run.clock[0].now_s
    done = end_iterations(engine, run.tasks, run.after, run.leaving)
    dropped = engine.dropped
    if begin_iterations(engine, run.tasks, run.after, now_s, 0):
        plan(run, ENGINES + number, run_end_s(engine))
    share_host(run, plant, engine.node)
    for index in range(done):
        served(run, plant, run.leaving[index], engine)
    for index in range(done, done + dropped):
        release(run, run.leaving[index])


@kernel
def segment_done(run: Run, plant: Plant, number: int) -> None:
    """A segment is done; the next one takes its slot."""
    engine_number = plant.arms[run.tasks[number].arm].engine
    engine = plant.engines[engine_number]
    end_segment(engine, run.tasks, run.after, number)
    begin_segments(run, plant, engine_number)
    served(run, plant, number, engine)


@kernel
def served(run: Run, plant: Plant, number: int, engine: Record) -> None:
    """A node is done with a task; its answer travels back."""
    task, clock = run.tasks[number], run.clock[0]
    task.on_node = 0
    settle_account(run, plant, number, engine)
    down = plant.states[engine.node].down
    task.ttft_s = task.prefill_s = 0.0
    if task.kind == LLM:
        task.queued_s = task.admitted_s - task.offered_s
        task.prefill_s = task.first_token_s - task.admitted_s
        task.compute_s = clock.now_s - task.first_token_s
        task.ttft_s = task.first_token_s + plant.links.directions[down].delay_s + task.hop_s - task.arrived_s
    else:
        task.queued_s, task.compute_s = task.started_s - task.offered_s, task.work_s
    arrived_s = deliver(plant.links, down, clock.now_s, float(task.down_bytes)) + task.hop_s
    plan(run, task_event(len(plant.engines), number, BACK), arrived_s)


@kernel
def settle_account(run: Run, plant: Plant, number: int, engine: Record) -> None:
    """Assign the task its share of the node's joules."""
    joules, now_s = meter_joules(run, plant, engine.node), run.clock[0].now_s
    close_account(plant.ledgers[engine.node], engine, run.tasks, plant.unpaid_after, number, now_s, joules)


@kernel
def expire(run: Run, plant: Plant, view: View, number: int) -> None:
    """The deadline of a task has passed."""
    task, now_s = run.tasks[number], run.clock[0].now_s
    if task.on_node:
        engine_number = plant.arms[task.arm].engine
        engine = plant.engines[engine_number]
        task.on_node = 0
        if cancel(engine, run.tasks, run.after, number, now_s):
            hold(run, number)
        if task.kind != LLM:
            cancel_event(run, task_event(len(plant.engines), number, SERVED))
            begin_segments(run, plant, engine_number)
        elif shorten(engine, now_s):
            plan(run, ENGINES + engine_number, run_end_s(engine))
        settle_account(run, plant, number, engine)
    end(run, plant, view, number, EXPIRED)


@kernel
def attempt_failed(run: Run, plant: Plant, view: View, number: int, status: int) -> bool:
    """End an attempt that failed. True if the task may try another node: no token was made and attempts are left."""
    task, clock = run.tasks[number], run.clock[0]
    if task.over:
        return False
    begun = task.first_token_s > 0.0 and task.first_token_s <= clock.now_s
    if begun or task.attempt >= clock.attempts:
        end(run, plant, view, number, status)
        return False
    write_outcome(run, plant, view, number, status)
    report_outcome(run, plant, number)
    task.tried[task.tries] = view.arms[task.arm].node
    task.tries += 1
    return True


@kernel
def end(run: Run, plant: Plant, view: View, number: int, status: int) -> None:
    """A task ends in exactly one outcome."""
    task, clock = run.tasks[number], run.clock[0]
    task.over = 1
    for which in (DEADLINE, REACH, BACK):
        cancel_event(run, task_event(len(plant.engines), number, which))
    clock.open_tasks -= 1
    write_outcome(run, plant, view, number, status)
    if task.arm != NONE:
        report_outcome(run, plant, number)
    note = run.ended[clock.ended]
    note.finished_s, note.latency_s, note.ttft_s, note.gateway_s = (
        clock.now_s,
        task.latency_s,
        task.ttft_s,
        task.gateway_s,
    )
    note.transmission_joules, note.inference_joules = task.transmission_joules, task.inference_joules
    note.idle_joules, note.queued_s = task.idle_joules, task.queued_s
    note.prefill_s, note.compute_s = task.prefill_s, task.compute_s
    note.number, note.status, note.arm, note.attempt = task.number, status, task.arm, task.attempt
    note.up_bytes, note.down_bytes = task.up_bytes, task.answered_bytes
    clock.ended += 1
    if clock.open_tasks == 0 and clock.more == 0:
        plan(run, CLOSE, clock.now_s + clock.outcome_s)
    release(run, number)


@kernel
def write_outcome(run: Run, plant: Plant, view: View, number: int, status: int) -> None:
    """What was measured of an attempt that ended now."""
    task, now_s = run.tasks[number], run.clock[0].now_s
    task.status, task.latency_s = status, now_s - task.arrived_s
    task.answered_bytes = task.down_bytes if status == OK else 0
    if status != OK:
        task.ttft_s = task.queued_s = task.prefill_s = task.compute_s = 0.0
        task.inference_joules = task.idle_joules = 0.0
    if task.arm == NONE:
        task.transmission_joules = 0.0
        return
    joules_per_byte = plant.states[view.arms[task.arm].node].joules_per_byte
    task.transmission_joules = (task.up_bytes + task.answered_bytes) * joules_per_byte
    attempt = run.attempts[task.attempt_number]
    attempt.status, attempt.answered = status, 1 if status == OK else 0
    attempt.finished_s, attempt.ttft_s = now_s, task.ttft_s
    attempt.met = 1 if status == OK and task.latency_s <= task.deadline_s else 0
    attempt.measured_s, attempt.gateway_s, attempt.queued_s = task.latency_s, task.gateway_s, task.queued_s
    attempt.prefill_s, attempt.compute_s = task.prefill_s, task.compute_s
    attempt.transmission_joules, attempt.inference_joules = task.transmission_joules, task.inference_joules
    attempt.idle_joules, attempt.answer_quality = task.idle_joules, view.arms[task.arm].quality
    attempt.sent_bytes, attempt.received_bytes = float(task.up_bytes), float(task.answered_bytes)


@kernel
def report_outcome(run: Run, plant: Plant, number: int) -> None:
    """The policy gets the outcome of this attempt after `outcome_s`."""
    hold(run, number)
    which = REPORTED + run.tasks[number].attempt - 1
    plan(run, task_event(len(plant.engines), number, which), run.clock[0].now_s + run.clock[0].outcome_s)


@kernel
def receive_outcome(run: Run, view: View, state: object, number: int, attempt_index: int) -> None:
    """The end of an attempt became known to the scheduler."""
    attempt = run.attempts[number * ATTEMPTS + attempt_index]
    if attempt.forgotten:
        return
    node = view.nodes[attempt.node]
    if attempt.in_flight:
        release_reservation(node, attempt)
    attempt.forgotten = 1
    if attempt.status == CANCELLED:
        return
    if attempt.status == REJECTED:
        if node.present:
            mark_full(node)
        return
    if attempt.status == OK and node.guessing and node.present:
        guess_link(node, attempt)
    note_reward(view.rewards, attempt)
    learn(state, attempt, run.clock[0].now_s)


@kernel
def change_engine_pace(run: Run, plant: Plant, number: int) -> None:
    """An engine takes on its drift and what hinders it, from the next iteration on."""
    engine = plant.engines[number]
    change_pace(engine)
    if shorten(engine, run.clock[0].now_s):
        plan(run, ENGINES + number, run_end_s(engine))
