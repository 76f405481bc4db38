"""What changes from decision to decision, per node: one block of numbers, a column a node, so one gather reads it."""

from __future__ import annotations

import numpy as np

from skyshore.domain.node import Link
from skyshore.policies.protocol import Booleans, Floats

FIRST_ROOM = 16

# Rows of the block.
OWN = 0
"""Tasks we placed that have not ended."""
FOREIGN = 1
"""Tasks the node reports beyond ours."""
BACKLOG_S = 2
"""Estimated seconds of work of our tasks."""
RESERVED = 3
"""Bytes per second our tasks need to keep their deadlines."""
CAPACITY = 4
KV_USED = 5
RATE = 6
"""Link's bytes per second towards the node; infinite where unknown."""
RTT_S = 7
JOULES_PER_BYTE = 8
ROWS = 9


class NodeColumns:
    """Load, room and link of every node. Numbers of lost nodes are given out again."""

    def __init__(self) -> None:
        self.block: Floats = np.zeros((ROWS, FIRST_ROOM))
        self.open: Booleans = np.zeros(FIRST_ROOM, dtype=np.bool_)
        """Nodes that take another task: not draining, not full."""
        self._draining: set[int] = set()
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        """A free number, its column blank."""
        if self._free:
            number = self._free.pop()
        else:
            number = self._next
            self._next += 1
            if number >= len(self.open):
                self.block = np.concatenate([self.block, np.zeros_like(self.block)], axis=1)
                self.open = np.concatenate([self.open, np.zeros_like(self.open)])
        self.block[:, number] = 0.0
        self.set_link(number, Link())
        self.set_status(number, foreign=0.0, capacity=1.0, kv_used=0.0, draining=False)
        return number

    def give_back(self, number: int) -> None:
        """Nobody uses this number any more."""
        self.open[number] = False
        self._free.append(number)

    def set_link(self, number: int, link: Link) -> None:
        """Write a link; a rate of 0 means not measured."""
        column = self.block[:, number]
        column[RATE] = link.up_bytes_per_s or np.inf
        column[RTT_S] = link.rtt_s
        column[JOULES_PER_BYTE] = link.joules_per_byte

    def set_status(self, number: int, *, foreign: float, capacity: float, kv_used: float, draining: bool) -> None:
        """Write what a heartbeat says."""
        column = self.block[:, number]
        column[FOREIGN], column[CAPACITY], column[KV_USED] = foreign, capacity, kv_used
        (self._draining.add if draining else self._draining.discard)(number)
        self._reopen(number)

    def add_task(self, number: int, service_s: float, bytes_per_s: float) -> float:
        """One more task of ours. Returns how many there are now."""
        column = self.block[:, number]
        column[OWN] += 1
        column[BACKLOG_S] += service_s
        column[RESERVED] += bytes_per_s
        self._reopen(number)
        return float(column[OWN])

    def drop_task(self, number: int, service_s: float, bytes_per_s: float) -> None:
        """One task of ours fewer."""
        column = self.block[:, number]
        column[OWN] -= 1
        if column[OWN] > 0:
            column[BACKLOG_S] -= service_s
            column[RESERVED] -= bytes_per_s
        else:  # an idle node owes nothing: rounding errors end here
            column[BACKLOG_S] = column[RESERVED] = 0.0
        self._reopen(number)

    def fill(self, number: int) -> None:
        """Believe the node full until its next heartbeat."""
        column = self.block[:, number]
        column[FOREIGN] = max(column[FOREIGN], column[CAPACITY] - column[OWN])
        self._reopen(number)

    def _reopen(self, number: int) -> None:
        column = self.block[:, number]
        room = column[OWN] + column[FOREIGN] < column[CAPACITY]
        self.open[number] = room and number not in self._draining
