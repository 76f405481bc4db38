"""The path of a request to its node: arrival, decision, reservation and transmission."""

from __future__ import annotations

from simulator.records import ATTEMPTS, Plant, Run, View
from simulator.timeline import ARRIVE, DEADLINE, REACH, SLOT, hold, plan, task_event
from skyshore.links.delivery import deliver
from skyshore.links.framing import FRAME_BYTES, REQUEST_BYTES
from skyshore.nodemodel.clips import strided
from skyshore.rules.eligible import list_options
from skyshore.rules.kernel import kernel
from skyshore.rules.place import MOST_IN_SLOT, offer_task, plan_tasks
from skyshore.rules.records import FAILED, LLM, NONE, REJECTED, Integers, Record, Records
from skyshore.rules.reserve import release as release_reservation
from skyshore.rules.reserve import reserve, start_attempt

ASK = -2
"""Index of a decision that a Python policy makes."""


@kernel
def arrive(run: Run, engines: int, requests: Records) -> None:
    """The next request arrives; the one after it is planned."""
    clock = run.clock[0]
    clock.free -= 1
    number = run.free[clock.free]
    request = requests[clock.next_request]
    init_task(run.tasks[number], request, number, clock)
    clock.next_request += 1
    clock.open_tasks += 1
    plan(run, task_event(engines, number, DEADLINE), clock.now_s + request.deadline_s)
    clock.more = 1 if clock.next_request < len(requests) else 0
    if clock.more:
        plan(run, ARRIVE, requests[clock.next_request].at_s)
    place_soon(run, number)


@kernel
def init_task(task: Record, request: Record, number: int, clock: Record) -> None:
    """Make a task of a request."""
    clock.arrived += 1
    task.number = clock.arrived - 1
    task.task, task.serial = number, clock.arrived
    task.deadline_s, task.min_quality = request.deadline_s, request.min_quality
    task.kind, task.group, task.model = request.kind, request.group, NONE
    task.prompt_tokens, task.output_tokens = request.prompt_tokens, request.output_tokens
    task.reserved_tokens = request.prompt_tokens + request.output_tokens
    task.expected_tokens = float(request.output_tokens)
    task.frames, task.input_bytes, task.down_bytes = request.frames, request.input_bytes, request.down_bytes
    task.gateway_s, task.hop_s = request.gateway_s, request.hop_s
    task.arrived_s = task.asked_s = clock.now_s
    task.waited_s = task.first_token_s = 0.0
    task.holds = 1
    task.over = task.attempt = task.tries = task.up_bytes = task.on_node = task.lost = task.pays = 0
    task.cancelled = task.generated = 0
    task.arm = task.attempt_number = NONE


@kernel
def place_soon(run: Run, number: int) -> None:
    """Place a task once the event under way is over, at the same time."""
    run.placing[0] += 1
    run.placing[run.placing[0]] = number


@kernel
def note_wait(run: Run, view: View, task: Record) -> None:
    """Another attempt replaces the one before, and the time since that one was decided counts as waited."""
    now_s = run.clock[0].now_s
    waited_s = 0.0
    if task.attempt_number != NONE and run.attempts[task.attempt_number].in_flight:
        attempt = run.attempts[task.attempt_number]
        release_reservation(view.nodes[attempt.node], attempt)
        waited_s = now_s - attempt.decided_s + attempt.waited_s
    task.waited_s = max(waited_s, 0.0)
    task.asked_s = now_s


@kernel
def gather(run: Run, number: int) -> bool:
    """Let a task wait for the end of its slot. False where too many do."""
    clock, line = run.clock[0], run.gathered
    if line[0] >= MOST_IN_SLOT:
        note_decision(run, run.tasks[number].number, NONE, 0.0)
        run.tasks[number].status = REJECTED
        return False
    if line[0] == 0:
        plan(run, SLOT, (clock.now_s // clock.slot_s + 1) * clock.slot_s)
    line[0] += 1
    line[line[0]] = number
    hold(run, number)
    return True


@kernel
def list_gathered(run: Run, view: View, number: int) -> None:
    """The arms that a task of a slot may take, for a policy that plans the slot."""
    note_slot(run, number)
    list_options(run.tasks[number], view.nodes, view.arms, view.order, view.options)


@kernel
def plan_gathered(run: Run, view: View, state: object, line: Integers) -> None:
    """Let a policy whose rule is a kernel plan the tasks of a slot: `line[0]` of them, in the order that follows."""
    for place in range(1, line[0] + 1):
        note_slot(run, line[place])
        offer_task(state, run.tasks[line[place]], view.nodes, view.arms, view.order, view.options)
    plan_tasks(state)


@kernel
def time_left_s(run: Run, number: int) -> float:
    """Seconds until the deadline of a task that waits in a slot."""
    task = run.tasks[number]
    return float(task.deadline_s - max(run.clock[0].now_s - task.asked_s, 0.0))


@kernel
def note_slot(run: Run, number: int) -> None:
    """The time in its slot counts as waited."""
    task, now_s = run.tasks[number], run.clock[0].now_s
    task.now_s, task.waited_s = now_s, max(now_s - task.asked_s, 0.0)
    task.remaining_s = task.deadline_s - task.waited_s


@kernel
def note_decision(run: Run, number: int, arm: int, propensity: float) -> None:
    """Note a decision for the fingerprint of the run."""
    clock = run.clock[0]
    note = run.decided[clock.decided]
    note.number, note.arm, note.propensity = number, arm, propensity
    clock.decided += 1


@kernel
def settle(run: Run, plant: Plant, view: View, number: int) -> bool:
    """Carry out the decision on a task: reserve and send. False, with its status, where it is refused."""
    task, decision, clock = run.tasks[number], view.options.decision[0], run.clock[0]
    if clock.stepping:
        clock.placed = number
    if decision.count == 0 or decision.index == NONE:
        note_decision(run, task.number, NONE, 0.0)
        task.arm = NONE
        # A policy that refuses while arms are merely full, or for a second, is like a full queue.
        full = decision.full > 0 if decision.count == 0 else decision.transient or decision.count < decision.capable
        task.status = REJECTED if full else FAILED
        return False
    estimate = view.options.estimates[decision.index]
    note_decision(run, task.number, estimate.arm, decision.propensity)
    attempt_number = number * ATTEMPTS + task.attempt - 1
    attempt = run.attempts[attempt_number]
    start_attempt(attempt, task, view.options, clock.grace_s)
    reserve(view.nodes[attempt.node], attempt)
    task.attempt_number, task.arm = attempt_number, estimate.arm
    send(run, plant, view, number)
    return True


@kernel
def send(run: Run, plant: Plant, view: View, number: int) -> None:
    """The bytes of a placed task leave for its node."""
    task, clock = run.tasks[number], run.clock[0]
    arm = view.arms[task.arm]
    up = plant.states[arm.node].up
    task.up_bytes = bytes_sent(plant.arms[task.arm], task)
    if task.over:  # its deadline came before its slot's end
        return
    leaves_s = clock.now_s + task.gateway_s + task.hop_s
    task.sent_s = deliver(plant.links, up, leaves_s, float(task.up_bytes))
    reached_s = task.sent_s
    if task.kind != LLM:  # frames are worked on as they come; the segment queues from when its header has arrived
        reached_s = min(task.sent_s, leaves_s + plant.links.directions[up].delay_s)
    plan(run, task_event(len(plant.engines), number, REACH), reached_s)


@kernel
def bytes_sent(arm: Record, task: Record) -> int:
    """Bytes that reach the node, framing included."""
    if task.kind == LLM:
        return int(REQUEST_BYTES + task.input_bytes)
    return int(REQUEST_BYTES + int(strided(task.frames, arm.frame_stride) * (FRAME_BYTES + arm.bytes_per_frame)))
