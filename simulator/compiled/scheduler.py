"""`skyshore.scheduling` on arrays: who may take a task, what it would cost there, and the room that is reserved."""

from __future__ import annotations

import math

from simulator.compiled.jit import compiled
from simulator.compiled.layout import (
    FAILED,
    JOULES,
    LATENCY_S,
    LLM,
    NONE,
    OK,
    REJECTED,
    SERVICE_S,
    SLACK,
    SPARE,
    UP_BYTES,
    Fleet,
    Mind,
    Record,
    Run,
)
from simulator.compiled.rules import choose, learn
from skyshore.links.meter import LEAST_BUSY_S
from skyshore.policies.constraints import spare_share
from skyshore.scheduling.estimates import expected_queue_s
from skyshore.scheduling.link_estimate import LARGE_BYTES, mean, transfer_s

_expected_queue_s, _spare_share = compiled(expected_queue_s), compiled(spare_share)
_mean, _transfer_s = compiled(mean), compiled(transfer_s)


@compiled
def arrive(run: Run, fleet: Fleet, mind: Mind, number: int) -> int:
    """Decide on a task and reserve its room. Returns the arm, or NONE, with what it means in the task's status."""
    task, now_s = run.tasks[number], run.clock[0].now_s
    waited_s = 0.0
    if task.reserved:
        _release(fleet, task)
        waited_s = now_s - task.asked_s + task.waited_s
    task.asked_s, task.waited_s = now_s, max(waited_s, 0.0)
    count, full = _open_arms(fleet, mind, task)
    chosen, ties = NONE, 1
    if count:
        _estimate(fleet, mind, task, count)
        chosen, ties = choose(fleet, mind, task, count)
        full = True  # a policy that refuses does so for now
    note = run.decided[run.clock[0].decided]
    note.number, note.arm, note.ties = task.number, NONE if chosen == NONE else mind.rows[chosen], ties
    run.clock[0].decided += 1
    if chosen == NONE:
        task.status = REJECTED if full else FAILED
        return NONE
    _reserve(fleet, mind, task, chosen)
    return int(mind.rows[chosen])


@compiled
def _open_arms(fleet: Fleet, mind: Mind, task: Record) -> tuple[int, bool]:
    """List the arms that may take a task; how many, and whether others are merely full."""
    tokens, count, full = task.prompt_tokens + task.output_tokens, 0, False
    for arm in range(fleet.tables[task.table], fleet.tables[task.table + 1]):
        record = fleet.arms[arm]
        if record.context_tokens < tokens or record.quality < task.min_quality:
            continue
        avoided = False
        for earlier in range(task.attempt - 1):
            avoided = avoided or task.tried[earlier] == record.node
        if avoided:
            continue
        if fleet.nodes[record.node].open:
            mind.rows[count] = arm
            count += 1
        else:
            full = True
    return count, full


@compiled
def _estimate(fleet: Fleet, mind: Mind, task: Record, count: int) -> None:
    """`few_arms.estimate_rows`, and the slack of every constraint."""
    remaining_s = max(task.deadline_s - task.waited_s, 1e-9)
    for index in range(count):
        arm, estimate = fleet.arms[mind.rows[index]], mind.estimates[index]
        node = fleet.nodes[arm.node]
        if task.kind == LLM:
            service_s = task.prompt_tokens * arm.prefill_s_per_token + task.output_tokens * arm.decode_s_per_token
            up_bytes = float(task.input_bytes)
        else:
            frames = math.ceil(task.frames / arm.stride)
            service_s = frames * arm.frame_s
            per_frame = arm.bytes_per_frame if arm.bytes_per_frame > 0 else task.input_bytes / max(task.frames, 1)
            up_bytes = frames * per_frame
        load = node.own + node.foreign
        queue_s = _expected_queue_s(load, node.own, arm.slots, node.backlog_s, service_s)
        transmission_s = node.rtt_s + up_bytes / node.bytes_per_s
        estimate[SERVICE_S], estimate[UP_BYTES] = service_s, up_bytes
        estimate[LATENCY_S] = transmission_s + queue_s + service_s
        estimate[JOULES] = arm.busy_watts * service_s + node.joules_per_byte * up_bytes
        estimate[SPARE] = _spare_share(
            load, node.capacity, up_bytes, node.reserved_bytes_per_s, node.bytes_per_s, node.kv_used, remaining_s
        )
        estimate[SLACK] = min(1.0 - estimate[LATENCY_S] / remaining_s, estimate[SPARE])


@compiled
def _reserve(fleet: Fleet, mind: Mind, task: Record, chosen: int) -> None:
    node, estimate = fleet.nodes[fleet.arms[mind.rows[chosen]].node], mind.estimates[chosen]
    task.reserved, task.slack = 1, estimate[SPARE]
    task.service_s = estimate[SERVICE_S]
    task.bytes_per_s = estimate[UP_BYTES] / max(task.deadline_s - task.waited_s, 1e-3)
    node.own += 1.0
    node.backlog_s += task.service_s
    node.reserved_bytes_per_s += task.bytes_per_s
    node.peak = max(node.peak, node.own)
    _reopen(node)


@compiled
def _release(fleet: Fleet, task: Record) -> None:
    node = fleet.nodes[fleet.arms[task.arm].node]
    task.reserved = 0
    node.own -= 1.0
    if node.own > 0:
        node.backlog_s -= task.service_s
        node.reserved_bytes_per_s -= task.bytes_per_s
    else:
        node.backlog_s = node.reserved_bytes_per_s = 0.0
    _reopen(node)


@compiled
def _reopen(node: Record) -> None:
    node.open = 1 if node.own + node.foreign < node.capacity else 0


@compiled
def hear(run: Run, fleet: Fleet, mind: Mind, number: int, attempt: int) -> None:
    """The end of an attempt became known; only the last one's is more than a node that was full."""
    task = run.tasks[number]
    if attempt < task.attempt:
        _believe_full(fleet.nodes[task.tried[attempt - 1]])
        return
    if task.reserved:
        _release(fleet, task)
    node = fleet.nodes[fleet.arms[task.arm].node]
    if task.status == REJECTED:
        _believe_full(node)
        return
    if task.status == OK and node.guessing:
        _guess_link(run, node, task)
    learn(fleet, mind, task)


@compiled
def _believe_full(node: Record) -> None:
    node.foreign = max(node.foreign, node.capacity - node.own)
    _reopen(node)


@compiled
def _guess_link(run: Run, node: Record, task: Record) -> None:
    on_link_s = task.latency_s - run.clock[0].gateway_s - task.queue_s - task.prefill_s - task.compute_s
    if on_link_s > 0:
        if task.up_bytes >= LARGE_BYTES:
            rate = task.up_bytes / _transfer_s(on_link_s, node.guess_rtt_s)
            node.guess_bytes_per_s = _mean(node.guess_bytes_per_s, rate)
        else:
            node.guess_rtt_s = _mean(node.guess_rtt_s, on_link_s)
        moved_bytes = task.up_bytes + task.answered_bytes
        if task.transmission_joules and moved_bytes:
            node.guess_joules_per_byte = _mean(node.guess_joules_per_byte, task.transmission_joules / moved_bytes)
    _believe_link(node, node.guess_bytes_per_s, node.guess_rtt_s, node.guess_joules_per_byte)


@compiled
def _believe_link(node: Record, bytes_per_s: float, rtt_s: float, joules_per_byte: float) -> None:
    node.bytes_per_s = bytes_per_s if bytes_per_s != 0.0 else math.inf
    node.rtt_s, node.joules_per_byte = rtt_s, joules_per_byte


@compiled
def report(fleet: Fleet, number: int) -> None:
    """A node's heartbeat, and what its link was measured to be."""
    node, tasks, capacity, kv_used = fleet.nodes[number], 0, 0, 0.0
    for index in range(node.first_server, node.first_server + node.servers):
        server = fleet.servers[index]
        tasks += fleet.working[index][0] + fleet.waiting[index][0]
        capacity += server.room
        if server.kind == LLM:
            kv_used = max(kv_used, server.kv_reserved / server.kv_tokens)
    ours_then = max(node.peak, node.last_peak, node.own)
    node.last_peak, node.peak = node.peak, node.own
    node.foreign = max(0.0, tasks - ours_then)
    node.capacity, node.kv_used = float(max(capacity, 1)), kv_used
    _reopen(node)
    up, down = fleet.ways[node.up], fleet.ways[node.down]
    if up.metered and down.metered and up.meter_delay_s != 0.0 and down.meter_delay_s != 0.0:
        node.guessing = 0
        rate = up.meter_bytes / up.meter_busy_s if up.meter_busy_s >= LEAST_BUSY_S else 0.0
        _believe_link(node, rate, up.meter_delay_s + down.meter_delay_s, node.link_joules_per_byte)
