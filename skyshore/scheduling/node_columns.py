"""What changes from decision to decision, per node: plain numbers to reckon with, and the same as columns for numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skyshore.domain.node import Link
from skyshore.policies.protocol import Booleans, Floats

FIRST_ROOM = 16

# Rows of the block.
OWN = 0
FOREIGN = 1
BACKLOG_S = 2
RESERVED = 3
CAPACITY = 4
KV_USED = 5
RATE = 6
RTT_S = 7
JOULES_PER_BYTE = 8
ROWS = 9


@dataclass(slots=True, eq=False)
class NodeState:
    """Load, room and link of one node."""

    number: int
    own: float = 0.0
    """Tasks we placed that have not ended."""
    foreign: float = 0.0
    """Tasks the node reports beyond ours."""
    backlog_s: float = 0.0
    """Estimated seconds of work of our tasks."""
    reserved_bytes_per_s: float = 0.0
    """Rate our tasks need to keep their deadlines."""
    capacity: float = 1.0
    kv_used: float = 0.0
    bytes_per_s: float = math.inf
    """Of the link towards the node; infinite where unknown."""
    rtt_s: float = 0.0
    joules_per_byte: float = 0.0
    draining: bool = False
    open: bool = False
    """Takes another task: not draining, not full."""

    def column(self) -> tuple[float, ...]:
        """All numbers in the order of the block's rows."""
        return (
            self.own,
            self.foreign,
            self.backlog_s,
            self.reserved_bytes_per_s,
            self.capacity,
            self.kv_used,
            self.bytes_per_s,
            self.rtt_s,
            self.joules_per_byte,
        )


class NodeColumns:
    """The state of every node. Numbers of lost nodes are given out again.

    One decision changes one node, so the columns are brought up to date node by node, and only when they are read.
    """

    def __init__(self) -> None:
        self.states: list[NodeState] = []
        """By number."""
        self._block: Floats = np.zeros((ROWS, FIRST_ROOM))
        self._open: Booleans = np.zeros(FIRST_ROOM, dtype=np.bool_)
        self._changed: set[int] = set()
        self._free: list[int] = []

    @property
    def block(self) -> Floats:
        """One column a node: [ROWS, numbers]."""
        if self._changed:
            self._refresh()
        return self._block

    @property
    def open(self) -> Booleans:
        """Which nodes take another task."""
        if self._changed:
            self._refresh()
        return self._open

    def take(self) -> NodeState:
        """A blank state, under a free number."""
        number = self._free.pop() if self._free else len(self.states)
        state = NodeState(number)
        if number < len(self.states):
            self.states[number] = state
        else:
            self.states.append(state)
        self._reopen(state)
        return state

    def give_back(self, state: NodeState) -> None:
        """Nobody uses this state any more."""
        state.open = False
        self._changed.add(state.number)
        self._free.append(state.number)

    def set_link(self, state: NodeState, link: Link) -> None:
        """Write a link; a rate of 0 means not measured."""
        self.guess_link(state, link.up_bytes_per_s, link.rtt_s, link.joules_per_byte)

    def guess_link(self, state: NodeState, bytes_per_s: float, rtt_s: float, joules_per_byte: float) -> None:
        """`set_link` with what a `Link` is made of."""
        state.bytes_per_s = bytes_per_s or math.inf
        state.rtt_s, state.joules_per_byte = rtt_s, joules_per_byte
        self._changed.add(state.number)

    def set_status(self, state: NodeState, *, foreign: float, capacity: float, kv_used: float, draining: bool) -> None:
        """Write what a heartbeat says."""
        state.foreign, state.capacity, state.kv_used, state.draining = foreign, capacity, kv_used, draining
        self._reopen(state)

    def add_task(self, state: NodeState, service_s: float, bytes_per_s: float) -> None:
        """One more task of ours."""
        state.own += 1.0
        state.backlog_s += service_s
        state.reserved_bytes_per_s += bytes_per_s
        self._reopen(state)

    def drop_task(self, state: NodeState, service_s: float, bytes_per_s: float) -> None:
        """One task of ours fewer."""
        state.own -= 1.0
        if state.own > 0:
            state.backlog_s -= service_s
            state.reserved_bytes_per_s -= bytes_per_s
        else:  # an idle node owes nothing: rounding errors end here
            state.backlog_s = state.reserved_bytes_per_s = 0.0
        self._reopen(state)

    def fill(self, state: NodeState) -> None:
        """Believe the node full until its next heartbeat."""
        state.foreign = max(state.foreign, state.capacity - state.own)
        self._reopen(state)

    def _reopen(self, state: NodeState) -> None:
        state.open = not state.draining and state.own + state.foreign < state.capacity
        self._changed.add(state.number)

    def _refresh(self) -> None:
        while self._block.shape[1] < len(self.states):
            self._block = np.concatenate([self._block, np.zeros_like(self._block)], axis=1)
            self._open = np.concatenate([self._open, np.zeros_like(self._open)])
        for number in self._changed:
            state = self.states[number]
            self._block[:, number] = state.column()
            self._open[number] = state.open
        self._changed.clear()
