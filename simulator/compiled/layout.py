"""What the kernel knows, as arrays of records: one record type a thing, its fields named as in the plain simulator."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
Record = Any
"""One of them, seen as an object with the fields as attributes: what compiled functions see."""
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

ATTEMPTS = 3
"""Nodes tried before a task fails, at most."""
NONE = -1
LLM, VIDEO = 0, 1

# How a task ended; the order is that of `STATUSES` in `engine`.
OK, FAILED, REJECTED, EXPIRED = 0, 1, 2, 3

LATENCY_S, SERVICE_S, JOULES, UP_BYTES, SPARE, SLACK = range(6)
ESTIMATES = 6
"""Columns of `Mind.estimates`; the last two are the slack of nodes' resources, and that of all constraints."""

RULES = ("least_loaded", "cs_ucb", "round_robin", "shortest_delay", "greedy_energy")
"""By the number that `rules` knows them by; the names are those of `Formula.rule`."""
REWARD_WINDOW = 256
"""Of `RewardModel`."""


def _record(floats: str, numbers: str = "", *more: tuple[str, str, tuple[int, ...]]) -> np.dtype[np.void]:
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [(name, "f8") for name in floats.split()]
    return np.dtype([*fields, *((name, "i8") for name in numbers.split()), *more], align=True)


CLOCK = _record(
    "now_s gateway_s hop_s outcome_s heartbeat_s",
    "turns planned stopped attempts open_tasks free next_request arrived more decided ended starved",
)
EVENT = _record("time_s", "turn place")
"""`place` in the heap; NONE for what is not planned."""
NODE = _record(
    "idle_watts joules_per_byte "
    # the scheduler's view
    "own foreign backlog_s reserved_bytes_per_s capacity kv_used bytes_per_s rtt_s peak last_peak "
    "guess_bytes_per_s guess_rtt_s guess_joules_per_byte link_joules_per_byte "
    # the energy ledger
    "ledger_s ledger_joules ledger_inference ledger_idle",
    "open guessing first_server servers up down paying",
)
SERVER = _record(
    "busy_watts worked_s segment_s iteration_s prefill_token_s row_s run_start_s run_each_s",
    "kind node slots room kv_tokens chunk_tokens kv_reserved run_count run_open paying",
)
"""`slots` work at once and `room` is for those and the waiting; an open run is `run_count` iterations long."""
ARM = _record(
    "quality busy_watts context_tokens prefill_s_per_token decode_s_per_token frame_s stride bytes_per_frame slots",
    "node server frame_stride",
)
WAY = _record(
    "delay_s jitter_s last_s meter_delay_s meter_bytes meter_busy_s meter_left_s meter_counted_s",
    "bucket chunk_bytes metered drawn margin",
)
BUCKET = _record("rate tokens at_s seen", "unlimited")
REQUEST = _record(
    "at_s deadline_s min_quality",
    "kind table service_class prompt_tokens output_tokens frames down_bytes input_bytes",
)
"""One arrival; `frames` are those the gateway would send, `table` numbers the kind among the scheduler's."""
TASK = _record(
    "deadline_s min_quality arrived_s asked_s waited_s sent_s work_s ready_s started_s offered_s admitted_s "
    "first_token_s inference_mark idle_mark service_s bytes_per_s slack "
    "latency_s ttft_s transmission_joules inference_joules idle_joules queue_s prefill_s compute_s",
    "kind table service_class prompt_tokens output_tokens frames down_bytes input_bytes "
    "number over holds attempt arm up_bytes reserved aboard pays prefilled generated chunk cancelled status "
    "answered_bytes",
    ("tried", "i8", (ATTEMPTS,)),
)
ENDED = _record(
    "finished_s latency_s ttft_s transmission_joules inference_joules idle_joules queue_s prefill_s compute_s",
    "number status arm up_bytes down_bytes",
)
DECIDED = _record("", "number arm ties")
"""One decision: the arm or NONE, and among how many equals it was drawn."""
REWARDS = _record("value", "seen")
RULE = _record("delta theta discount reward_weight", "name constrain explore infeasible")


class Fleet(NamedTuple):
    """What stands: nodes, their servers, arms and links."""

    nodes: Records
    servers: Records
    arms: Records
    tables: Numbers
    """[tables + 1] first arm of each kind's table."""
    ways: Records
    buckets: Records
    draws: Floats
    """[ways, room] normal deviates drawn ahead."""
    waiting: Numbers
    """[servers, room + 1] tasks in line, the first entry counting them."""
    working: Numbers
    """Likewise those at work, in the order in which they began."""
    unpaid: Numbers
    """Likewise those that wait for a slot in the energy ledger."""
    finished: Numbers
    """Rows that the iterations just ended completed."""


class Mind(NamedTuple):
    """What decides: the policy's rule, what it learned, and room to score arms in."""

    rule: Records
    counts: Floats
    sums: Floats
    totals: Floats
    """[classes, tables] discounted outcomes."""
    rng: np.random.Generator
    last: Numbers
    """[tables] arm that round robin chose last."""
    rewards: Records
    joules: Floats
    """[tables, window] the last joules seen, for the reward's yardstick."""
    rows: Numbers
    scores: Floats
    estimates: Floats
    """[arms, ESTIMATES]: of the arms that may take the task under way."""


class Run(NamedTuple):
    """What happens: the clock, planned events, tasks under way, and what is to be told."""

    clock: Records
    events: Records
    heap: Numbers
    tasks: Records
    free: Numbers
    decided: Records
    ended: Records
