"""How heartbeats and measured links change the record of a node."""

from __future__ import annotations

import math

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record
from skyshore.rules.reserve import update_open


@kernel
def join(node: Record) -> None:
    """A node joins: nothing is known of its load and its link."""
    node.own = node.foreign = node.backlog_s = node.reserved_bytes_per_s = node.kv_used = 0.0
    node.peak = node.last_peak = 0.0
    node.capacity, node.bytes_per_s = 1.0, math.inf
    node.rtt_s = node.joules_per_byte = 0.0
    node.guess_bytes_per_s = node.guess_rtt_s = node.guess_joules_per_byte = 0.0
    node.present, node.guessing, node.draining = 1, 1, 0
    update_open(node)


@kernel
def leave(node: Record) -> None:
    """A node is lost."""
    node.present = node.open = 0


@kernel
def note_status(node: Record, tasks: float, capacity: float, kv_used: float, draining: bool) -> None:
    """Take in a heartbeat: tasks running and queued, room for tasks, share of the KV memory in use.

    A heartbeat is up to one period old, so it may count tasks of ours that have ended since. Only tasks beyond the most
    that we had in flight in this time are counted as other schedulers' tasks.
    """
    ours = max(node.peak, node.last_peak, node.own)
    node.last_peak, node.peak = node.peak, node.own
    node.foreign = max(0.0, tasks - ours)
    node.capacity, node.kv_used, node.draining = capacity, kv_used, 1 if draining else 0
    update_open(node)


@kernel
def set_link(node: Record, bytes_per_s: float, rtt_s: float, joules_per_byte: float) -> None:
    """Write what is known of a link; a rate of 0 means not known."""
    node.bytes_per_s = bytes_per_s if bytes_per_s != 0.0 else math.inf
    node.rtt_s, node.joules_per_byte = rtt_s, joules_per_byte


@kernel
def measured_link(node: Record, bytes_per_s: float, rtt_s: float, joules_per_byte: float) -> None:
    """Use a measured link from now on, instead of a guess."""
    node.guessing = 0
    set_link(node, bytes_per_s, rtt_s, joules_per_byte)
