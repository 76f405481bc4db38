"""Records of engines, of the tasks on them and of the energy ledger, for the kernels of this package."""

from __future__ import annotations

from skyshore.rules.records import dtype_of

LLM, VIDEO = 0, 1
"""Kinds of engine."""
COUNT, FIRST, LAST = 0, 1, 2
"""Entries of a line; see `skyshore.nodemodel.lines`."""

LANE_FIELDS = "slots paying"
UNPAID = ("unpaid", "i8", (3,))
LANE = dtype_of("", LANE_FIELDS, UNPAID)
"""What the energy ledger knows of an engine: `paying` tasks in its `slots`, and the line of those that wait for one.
An ENGINE has these fields too."""
ENGINE = dtype_of(
    # pace: now, and as the profile states it
    "iteration_s prefill_token_s row_s stated_iteration_s stated_prefill_token_s stated_row_s slowdown hindrance "
    "stall_ratio segment_s busy_watts "
    # the open run of iterations, and seconds of work done
    "run_start_s run_each_s worked_s",
    f"kind node room kv_tokens chunk_tokens row_multiple kv_reserved run_open run_count run_decodes run_prefills "
    f"prefilled_last cancelled dropped {LANE_FIELDS}",
    ("waiting", "i8", (3,)),
    ("working", "i8", (3,)),
    UNPAID,
)
"""One engine of a node. `room` is for those at work (`slots` at most) and the waiting. It takes `slowdown` times as
long because of drift, and `hindrance` times because of what else runs on the machine. An open run is `run_count` equal
iterations; it prefills `run_prefills` tokens, and if `run_decodes`, every other row gets a token of each iteration."""
ROW_FLOATS = "admitted_s first_token_s work_s ready_s started_s"
ROW_INTEGERS = "prompt_tokens output_tokens reserved_tokens prefilled generated chunk cancelled"
"""Fields that an engine's kernels use of a task. `reserved_tokens`: KV tokens set aside from admission to the end.
`work_s`: seconds of one slot that a segment takes; it cannot be done before `ready_s`, when its last frame is there."""
ACCOUNT_FLOATS = "inference_mark idle_mark inference_joules idle_joules"
ACCOUNT_INTEGERS = "pays"
"""Fields that the energy ledger uses of a task; the joules are filled in when its account is closed."""
ROW = dtype_of(f"{ROW_FLOATS} {ACCOUNT_FLOATS}", f"{ROW_INTEGERS} {ACCOUNT_INTEGERS}")
"""The smallest record of a task that the kernels of this package accept."""
LEDGER = dtype_of("idle_watts seen_s seen_joules inference_share idle_share unassigned_joules", "paying")
"""The energy ledger of a node: its meter at the last event, and the joules of a task that had been in service since the
start."""
