"""Records of a simulation: clock and events, tasks under way, nodes as they are, and what the driver reads back."""

from __future__ import annotations

from typing import Any, NamedTuple

from skyshore.links.records import Links
from skyshore.nodemodel.records import ACCOUNT_FLOATS, ACCOUNT_INTEGERS, ROW_FLOATS, ROW_INTEGERS
from skyshore.rules.records import DEMAND_FIELDS, DEMAND_INTEGERS, KINDS, Integers, Options, Records, dtype_of
from skyshore.rules.reward import Rewards

ATTEMPTS = 3
"""Nodes tried before a task fails, at most."""

CLOCK = dtype_of(
    "now_s gateway_s hop_s outcome_s heartbeat_s slot_s grace_s",
    "turns events attempts open_tasks free arrived more next_request stopped decided ended asked answered placed "
    "reported called slot_over slot_room plans_slots stepping",
)
"""Settings of the run, its time and its counters. `asked` and `answered`: the tasks whose arm a Python policy must
choose and has chosen, or NONE. `reported`: the attempt whose outcome it must be given, or NONE. `placed`: the task just
placed, where each decision is shown. `called`, `slot_over`: a call of the driver is due, a slot has ended. Slots of
at most `slot_room` tasks are ended in the kernel; `plans_slots`: the policy plans them first."""
TASK = dtype_of(
    f"{DEMAND_FIELDS} {ROW_FLOATS} {ACCOUNT_FLOATS} arrived_s asked_s gateway_s hop_s sent_s offered_s "
    "latency_s ttft_s transmission_joules queued_s prefill_s compute_s",
    f"{DEMAND_INTEGERS} {ROW_INTEGERS} {ACCOUNT_INTEGERS} number over holds arm attempt_number up_bytes down_bytes "
    "on_node lost life offer_turn status answered_bytes",
    ("tried", "i8", (ATTEMPTS,)),
)
"""A request on its way from arrival to outcome. `number`: its place among all arrivals. `holds`: reasons to remember
it. `life`: that of the node on which it is; `offer_turn` orders the tasks of a node.
`lost`: its node crashed, and its attempt has not been ended yet."""
REQUEST = dtype_of(
    "at_s deadline_s min_quality input_bytes gateway_s hop_s",
    "kind group prompt_tokens output_tokens frames down_bytes",
)
"""One arrival. `frames` are those that the gateway would send."""
NODE_STATE = dtype_of(
    "idle_watts joules_per_byte started_s spent_joules",
    "alive life first_engine engines up down host",
    ("first_arm", "i8", (KINDS,)),
    ("arms", "i8", (KINDS,)),
)
"""A node as it is, beside NODE, which is what the scheduler knows of it. `spent_joules`: in earlier lives. The arms of
one kind follow one another."""
ARM_STATE = dtype_of("frame_s bytes_per_frame", "engine frame_stride")
"""What an arm makes of a task on its node."""
HOST = dtype_of("contention", "busy")
"""A machine that several nodes share: their engines take longer while those of others work."""
ENDED = dtype_of(
    "finished_s latency_s ttft_s gateway_s transmission_joules inference_joules idle_joules queued_s prefill_s "
    "compute_s",
    "number status arm attempt up_bytes down_bytes",
)
"""The end of a task."""
DECIDED = dtype_of("propensity", "number arm")
"""One decision: the task and the arm, or NONE."""


class Run(NamedTuple):
    """What happens."""

    clock: Records
    heap: Any
    """`ListHeap` or `ArrayHeap`."""
    turns: Integers
    """[events] turn of each event that is planned; 0 for one that is not."""
    tasks: Records
    after: Integers
    """[tasks] the task behind another in an engine's line."""
    free: Integers
    """Numbers of tasks that are free; `clock.free` counts them."""
    placing: Integers
    """First how many, then tasks to be placed now."""
    gathered: Integers
    """First how many, then tasks that wait for the end of their slot."""
    attempts: Records
    """[tasks * ATTEMPTS] ATTEMPT."""
    leaving: Integers
    decided: Records
    ended: Records


class Plant(NamedTuple):
    """Nodes, engines and links as they are."""

    states: Records
    """[nodes] NODE_STATE."""
    engines: Records
    ledgers: Records
    arms: Records
    """[arms] ARM_STATE."""
    hosts: Records
    links: Links
    unpaid_after: Integers


class View(NamedTuple):
    """What the scheduler knows."""

    nodes: Records
    arms: Records
    order: Integers
    options: Options
    rewards: Rewards
