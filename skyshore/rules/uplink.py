"""The link to one node, learned from the bytes that were sent over it and the answers that came back.

The scheduler sends all bytes, so it knows how many are still in flight: those sent minus those that answers confirm.
Bytes arrive in order, so an answer confirms all bytes before its own, also those of tasks that were given up. The time
that the confirmed bytes took is a sample of the link's rate, as in BBR (Cardwell and others, 2016). Heartbeats measure
the same rate, but one second later.
"""

from __future__ import annotations

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record, Records, dtype_of

MEMORY_S = 0.5
"""Half-life of a rate sample."""
LEAST_BYTES = 15_000.0
"""Ten packets: smaller messages measure the round trip, not the rate."""
FORGOTTEN_S = 10.0
"""Bytes sent this long ago are assumed to have arrived; a rate this old is not used any more."""

UPLINK_FIELDS = "free_at_s s_per_byte sent_bytes arrived_bytes arrived_at_s seen_at_s sample_s sample_bytes"
"""`free_at_s`: when the last byte sent is expected to have left. `s_per_byte`: as seen, 0 before anything was.
`sent_bytes`, `arrived_bytes`: so far. `sample_s`, `sample_bytes`: faded sums of the rate samples."""
SENDING = dtype_of("upto_bytes sent_at_s", "next")
"""A task's bytes that are not known to have arrived, as a list per node: `upto_bytes` is the node's count of bytes sent
with them."""
POOL = dtype_of("", "first free")
"""The unused rows of a pool: a list through their field `next`, and its length."""


@kernel
def add_free(records: Records, pools: Records, which: int, start: int) -> None:
    """Add the rows from `start` on to the unused rows of a pool."""
    pool = pools[which]
    for index in range(len(records) - 1, start - 1, -1):
        records[index].next, pool.first = pool.first, index
        pool.free += 1


@kernel
def drop_first_sending(node: Record, sendings: Records, pool: Record) -> None:
    """Remove the oldest bytes in flight to a node."""
    index = node.first_sending
    sending = sendings[index]
    node.first_sending, node.sendings = sending.next, node.sendings - 1
    sending.next, pool.first, pool.free = pool.first, index, pool.free + 1


@kernel
def send_bytes(  # noqa: PLR0917 (numba takes arguments by position)
    node: Record, sendings: Records, pool: Record, now_s: float, size_bytes: float, stated_s_per_byte: float
) -> float:
    """Send a task's bytes. Returns the node's count of bytes sent with them.

    If the pool is empty, the bytes are counted with those sent last to the node. If there are none, no answer gives a
    sample of the rate. `Skyshore.prepare_tasks` gives four rows a task, more than ten seconds of tasks need.
    """
    while node.sendings > 0 and sendings[node.first_sending].sent_at_s < now_s - FORGOTTEN_S:
        node.arrived_bytes = sendings[node.first_sending].upto_bytes
        drop_first_sending(node, sendings, pool)
    if now_s - node.seen_at_s > FORGOTTEN_S:
        node.s_per_byte = 0.0
    s_per_byte = node.s_per_byte if node.s_per_byte != 0.0 else stated_s_per_byte
    node.free_at_s = max(node.free_at_s, now_s) + size_bytes * s_per_byte
    node.sent_bytes += size_bytes
    if pool.free > 0:
        index = pool.first
        sending = sendings[index]
        pool.first, pool.free = sending.next, pool.free - 1
        sending.upto_bytes, sending.sent_at_s = node.sent_bytes, now_s
        if node.sendings == 0:
            node.first_sending = index
        else:
            sendings[node.last_sending].next = index
        node.last_sending, node.sendings = index, node.sendings + 1
    elif node.sendings > 0:
        sendings[node.last_sending].upto_bytes = node.sent_bytes
    return float(node.sent_bytes)


@kernel
def confirm_bytes(  # noqa: PLR0917 (numba takes arguments by position)
    node: Record,
    sendings: Records,
    pool: Record,
    half: float,
    upto_bytes: float,
    at_s: float,
    computed_s: float,
    stated_s_per_byte: float,
) -> None:
    """Note that all bytes up to a count had left by `at_s`, as an answer shows; `computed_s`: work that followed."""
    if upto_bytes <= node.arrived_bytes or node.sendings == 0:
        return
    begun_s = max(node.arrived_at_s, sendings[node.first_sending].sent_at_s)
    size_bytes, took_s = upto_bytes - node.arrived_bytes, at_s - begun_s
    while node.sendings > 0 and sendings[node.first_sending].upto_bytes <= upto_bytes:
        drop_first_sending(node, sendings, pool)
    # Answers no further apart than their work came from a busy engine: they are no sample of the link.
    if size_bytes >= LEAST_BYTES and took_s > computed_s:
        add_rate_sample(node, half, at_s, size_bytes, took_s)
    node.arrived_bytes, node.arrived_at_s = upto_bytes, max(at_s, node.arrived_at_s)
    free_at_s, before = node.arrived_at_s, upto_bytes
    s_per_byte = node.s_per_byte if node.s_per_byte != 0.0 else stated_s_per_byte
    index = node.first_sending
    for _ in range(node.sendings):
        sending = sendings[index]
        free_at_s = max(free_at_s, sending.sent_at_s) + (sending.upto_bytes - before) * s_per_byte
        before, index = sending.upto_bytes, sending.next
    node.free_at_s = free_at_s


@kernel
def note_late_bytes(  # noqa: PLR0917 (numba takes arguments by position)
    node: Record, sendings: Records, half: float, upto_bytes: float, at_s: float, stated_s_per_byte: float
) -> None:
    """A task was given up, and its bytes had not left by `at_s`: a sample, if the link is slower than predicted."""
    if upto_bytes <= node.arrived_bytes or node.sendings == 0:
        return
    begun_s = max(node.arrived_at_s, sendings[node.first_sending].sent_at_s)
    size_bytes, took_s = upto_bytes - node.arrived_bytes, at_s - begun_s
    if took_s > size_bytes * (node.s_per_byte if node.s_per_byte != 0.0 else stated_s_per_byte):
        add_rate_sample(node, half, at_s, size_bytes, took_s)
        node.free_at_s = max(node.free_at_s, at_s + (node.sent_bytes - upto_bytes) * node.s_per_byte)


@kernel
def add_rate_sample(node: Record, half: float, at_s: float, size_bytes: float, took_s: float) -> None:
    """Mean rate with a half-life of `MEMORY_S`.

    `half` is 0.5. It is an argument, because a compiler turns 0.5**x into exp2(-x), which rounds differently.
    """
    keep = half ** (max(at_s - node.seen_at_s, 0.0) / MEMORY_S)
    node.sample_s = keep * node.sample_s + took_s
    node.sample_bytes = keep * node.sample_bytes + size_bytes
    node.seen_at_s = max(at_s, node.seen_at_s)
    node.s_per_byte = node.sample_s / node.sample_bytes
