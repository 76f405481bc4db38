"""What changes from decision to decision, per node, as growing columns indexed by node number."""

from __future__ import annotations

import numpy as np

from skyshore.domain.node import Link
from skyshore.policies.protocol import Booleans, Floats

FIRST_ROOM = 16


class NodeColumns:
    """Load, room and link of every node. Numbers of lost nodes are given out again."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 0
        self.own: Floats = np.zeros(FIRST_ROOM)
        """Tasks we placed that have not ended."""
        self.foreign: Floats = np.zeros(FIRST_ROOM)
        """Tasks the node reports beyond ours."""
        self.backlog_s: Floats = np.zeros(FIRST_ROOM)
        """Estimated seconds of work of our tasks."""
        self.reserved_bytes_per_s: Floats = np.zeros(FIRST_ROOM)
        self.capacity: Floats = np.ones(FIRST_ROOM)
        self.kv_used: Floats = np.zeros(FIRST_ROOM)
        self.draining: Booleans = np.zeros(FIRST_ROOM, dtype=np.bool_)
        self.up_bytes_per_s: Floats = np.full(FIRST_ROOM, np.inf)
        self.rtt_s: Floats = np.zeros(FIRST_ROOM)
        self.joules_per_byte: Floats = np.zeros(FIRST_ROOM)

    def take(self) -> int:
        """A free number, its row blank."""
        if self._free:
            number = self._free.pop()
        else:
            number = self._next
            self._next += 1
            if number >= len(self.own):
                self._double()
        self._blank(number)
        return number

    def give_back(self, number: int) -> None:
        """Nobody uses this number any more."""
        self._free.append(number)

    def set_link(self, number: int, link: Link) -> None:
        """Write a link; a rate of 0 means not measured."""
        self.up_bytes_per_s[number] = link.up_bytes_per_s or np.inf
        self.rtt_s[number] = link.rtt_s
        self.joules_per_byte[number] = link.joules_per_byte

    def _blank(self, number: int) -> None:
        for column in (self.own, self.foreign, self.backlog_s, self.reserved_bytes_per_s, self.kv_used):
            column[number] = 0.0
        self.capacity[number] = 1.0
        self.draining[number] = False
        self.set_link(number, Link())

    def _double(self) -> None:
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                setattr(self, name, np.concatenate([column, column]))
