"""`simulator.cluster` on arrays: what gateway, links and nodes do with each request, event by event."""

from __future__ import annotations

from simulator.compiled.energy import close_account, open_account
from simulator.compiled.jit import compiled
from simulator.compiled.layout import EXPIRED, LLM, NONE, OK, REJECTED, VIDEO, Fleet, Mind, Record, Records, Run
from simulator.compiled.links import deliver
from simulator.compiled.scheduler import arrive, hear, report
from simulator.compiled.servers import begin_iterations, cancel, end_iterations, end_segment, offer
from simulator.compiled.timeline import (
    ARRIVE,
    BACK,
    BEAT,
    CLOSE,
    DEADLINE,
    HEAR,
    PER_TASK,
    REACH,
    SERVED,
    SERVERS,
    call_off,
    let_go,
    next_event,
    plan,
    task_event,
)
from simulator.flight import strided
from skyshore.links.framing import FRAME_BYTES, REQUEST_BYTES

_frames_sent = compiled(strided)


@compiled
def start(run: Run, fleet: Fleet, requests: Records) -> None:
    """Boot all nodes, plan the first heartbeat and the first arrival."""
    clock = run.clock[0]
    for node in range(len(fleet.nodes)):
        report(fleet, node)
    plan(run, BEAT, clock.heartbeat_s)
    clock.more = 1 if len(requests) else 0
    if clock.more:
        plan(run, ARRIVE, requests[0].at_s)
    else:
        plan(run, CLOSE, 0.0)


@compiled
def advance(run: Run, fleet: Fleet, mind: Mind, requests: Records, last: bool) -> bool:
    """Go on until the run is over, which is True, or until something is used up.

    That is room for tasks or notes, deviates drawn ahead, or requests: of these one is always kept, because the next
    arrival is planned as the one before it comes. `last` says that no others follow.
    """
    clock = run.clock[0]
    while not clock.stopped:
        if not last and clock.next_request >= len(requests) - 1:
            return False
        if not clock.free or clock.starved or clock.decided == len(run.decided) or clock.ended == len(run.ended):
            return False
        event = next_event(run)
        if event >= SERVERS:
            _happen(run, fleet, mind, event - SERVERS)
        elif event == ARRIVE:
            _arrive(run, fleet, mind, requests)
        elif event == BEAT:
            for node in range(len(fleet.nodes)):
                report(fleet, node)
            plan(run, BEAT, clock.now_s + clock.heartbeat_s)
        else:
            clock.stopped = 1
    return True


@compiled
def _happen(run: Run, fleet: Fleet, mind: Mind, event: int) -> None:
    """The end of a server's iterations, or an event of a task."""
    if event < len(fleet.servers):
        done = end_iterations(run, fleet, event)
        begin_iterations(run, fleet, event)
        for place in range(done):
            _served(run, fleet, event, fleet.finished[place])
        return
    task, which = divmod(event - len(fleet.servers), PER_TASK)
    if which == REACH:
        _reach(run, fleet, mind, task)
    elif which == SERVED:
        server = fleet.arms[run.tasks[task].arm].server
        end_segment(run, fleet, server, task)
        _served(run, fleet, server, task)
    elif which == BACK:
        _end(run, fleet, task, OK)
    elif which == DEADLINE:
        _expire(run, fleet, task)
    else:
        hear(run, fleet, mind, task, which - HEAR + 1)
        let_go(run, task)


# ----------------------------------------------------------------------------------------------------- arrivals


@compiled
def _arrive(run: Run, fleet: Fleet, mind: Mind, requests: Records) -> None:
    clock = run.clock[0]
    clock.free -= 1
    task = run.free[clock.free]
    _board(run.tasks[task], requests[clock.next_request], clock)
    clock.next_request += 1
    clock.open_tasks += 1
    plan(run, task_event(fleet, task, DEADLINE), clock.now_s + run.tasks[task].deadline_s)
    clock.more = 1 if clock.next_request < len(requests) else 0
    if clock.more:
        plan(run, ARRIVE, requests[clock.next_request].at_s)
    _place(run, fleet, mind, task)


@compiled
def _board(task: Record, request: Record, clock: Record) -> None:
    """Make a task of a request."""
    task.number = clock.arrived
    clock.arrived += 1
    task.deadline_s, task.min_quality = request.deadline_s, request.min_quality
    task.kind, task.table, task.service_class = request.kind, request.table, request.service_class
    task.prompt_tokens, task.output_tokens = request.prompt_tokens, request.output_tokens
    task.frames, task.input_bytes, task.down_bytes = request.frames, request.input_bytes, request.down_bytes
    task.arrived_s, task.waited_s, task.holds = clock.now_s, 0.0, 1
    task.over = task.attempt = task.up_bytes = task.reserved = task.aboard = 0
    task.prefilled = task.generated = task.cancelled = 0
    task.arm = NONE


@compiled
def _place(run: Run, fleet: Fleet, mind: Mind, number: int) -> None:
    task, clock = run.tasks[number], run.clock[0]
    task.attempt += 1
    task.arm = arrive(run, fleet, mind, number)
    if task.arm == NONE:
        _end(run, fleet, number, task.status)
        return
    arm = fleet.arms[task.arm]
    up = fleet.nodes[arm.node].up
    task.up_bytes = _bytes_to(arm, task)
    leaves_s = clock.now_s + clock.gateway_s + clock.hop_s
    task.sent_s = deliver(run, fleet, up, leaves_s, float(task.up_bytes))
    reached_s = task.sent_s if task.kind == LLM else min(task.sent_s, leaves_s + fleet.ways[up].delay_s)
    plan(run, task_event(fleet, number, REACH), reached_s)


@compiled
def _bytes_to(arm: Record, task: Record) -> int:
    if task.kind == LLM:
        return int(REQUEST_BYTES + task.input_bytes)
    return int(REQUEST_BYTES + int(_frames_sent(task.frames, arm.frame_stride) * (FRAME_BYTES + arm.bytes_per_frame)))


@compiled
def _reach(run: Run, fleet: Fleet, mind: Mind, number: int) -> None:
    task, now_s = run.tasks[number], run.clock[0].now_s
    arm = fleet.arms[task.arm]
    task.offered_s = now_s
    if task.kind == VIDEO:
        frames = _frames_sent(task.frames, arm.frame_stride)
        task.work_s = fleet.servers[arm.server].segment_s + frames * arm.frame_s
        task.ready_s = task.sent_s + arm.frame_s
    if offer(run, fleet, arm.server, number):
        task.aboard = 1
        open_account(run, fleet, arm.server, number)
    elif task.attempt >= run.clock[0].attempts:
        _end(run, fleet, number, REJECTED)
    else:
        task.tried[task.attempt - 1] = arm.node
        _tell(run, fleet, number)
        _place(run, fleet, mind, number)


# --------------------------------------------------------------------------------------------------------- ends


@compiled
def _served(run: Run, fleet: Fleet, server: int, number: int) -> None:
    """A node is done with a task; its answer travels back."""
    task, clock = run.tasks[number], run.clock[0]
    task.aboard = 0
    close_account(run, fleet, server, number)
    down = fleet.nodes[fleet.servers[server].node].down
    task.ttft_s = task.prefill_s = 0.0
    if task.kind == LLM:
        task.queue_s = task.admitted_s - task.offered_s
        task.prefill_s = task.first_token_s - task.admitted_s
        task.compute_s = clock.now_s - task.first_token_s
        task.ttft_s = task.first_token_s + fleet.ways[down].delay_s + clock.hop_s - task.arrived_s
    else:
        task.queue_s, task.compute_s = task.started_s - task.offered_s, task.work_s
    arrived_s = deliver(run, fleet, down, clock.now_s, float(task.down_bytes)) + clock.hop_s
    plan(run, task_event(fleet, number, BACK), arrived_s)


@compiled
def _expire(run: Run, fleet: Fleet, number: int) -> None:
    task = run.tasks[number]
    if task.aboard:
        server = fleet.arms[task.arm].server
        task.aboard = 0
        cancel(run, fleet, server, number)
        close_account(run, fleet, server, number)
    _end(run, fleet, number, EXPIRED)


@compiled
def _end(run: Run, fleet: Fleet, number: int, status: int) -> None:
    task, clock = run.tasks[number], run.clock[0]
    task.over, task.status = 1, status
    for which in (DEADLINE, REACH, BACK):
        call_off(run, task_event(fleet, number, which))
    clock.open_tasks -= 1
    task.answered_bytes = task.down_bytes if status == OK else 0
    joules_per_byte = fleet.nodes[fleet.arms[task.arm].node].link_joules_per_byte if task.arm != NONE else 0.0
    task.latency_s = clock.now_s - task.arrived_s
    task.transmission_joules = (task.up_bytes + task.answered_bytes) * joules_per_byte
    if status != OK:
        task.ttft_s = task.queue_s = task.prefill_s = task.compute_s = 0.0
        task.inference_joules = task.idle_joules = 0.0
    if task.arm != NONE:
        _tell(run, fleet, number)
    _note(run.ended[clock.ended], task, clock.now_s)
    clock.ended += 1
    if not (clock.open_tasks or clock.more):
        plan(run, CLOSE, clock.now_s + clock.outcome_s)
    let_go(run, number)


@compiled
def _tell(run: Run, fleet: Fleet, number: int) -> None:
    """The policy will hear of this attempt's end."""
    run.tasks[number].holds += 1
    event = task_event(fleet, number, HEAR + run.tasks[number].attempt - 1)
    plan(run, event, run.clock[0].now_s + run.clock[0].outcome_s)


@compiled
def _note(note: Record, task: Record, now_s: float) -> None:
    note.finished_s, note.latency_s, note.ttft_s = now_s, task.latency_s, task.ttft_s
    note.transmission_joules, note.inference_joules = task.transmission_joules, task.inference_joules
    note.idle_joules, note.queue_s = task.idle_joules, task.queue_s
    note.prefill_s, note.compute_s = task.prefill_s, task.compute_s
    note.number, note.status, note.arm = task.number, task.status, task.arm
    note.up_bytes, note.down_bytes = task.up_bytes, task.answered_bytes
