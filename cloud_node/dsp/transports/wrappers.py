"""Wrappers of any transport: one counts bytes, one adds a link's delay, one fails on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from cloud_node.dsp.cost import Fabric
from cloud_node.dsp.traffic import Traffic
from cloud_node.dsp.transports.port import Pending, Transport, to_peers


def _sent(sends: Sequence[Tensor | None], own: int) -> Traffic:
    messages = to_peers(sends, own)
    return Traffic(sum(buffer.nbytes for _, buffer in messages), len(messages))


class CountingTransport:
    """Adds up what this rank sends to others."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.rank, self.size = inner.rank, inner.size
        self.sent = Traffic()
        self.exchanges = 0

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """Count, then start the exchange."""
        self.sent += _sent(sends, self.rank)
        self.exchanges += 1
        return self._inner.exchange(sends, receives)


@dataclass(frozen=True, slots=True)
class _Delayed:
    inner: Pending
    due_s: float
    now_s: Callable[[], float]
    sleep: Callable[[float], None]

    def wait(self) -> None:
        """Return no earlier than the modelled link would have delivered."""
        self.inner.wait()
        left_s = self.due_s - self.now_s()
        if left_s > 0:
            self.sleep(left_s)


class ShapedTransport:
    """Makes exchanges last as long as on a full-duplex link of α seconds and β bytes per second.

    Exchanges of one rank share its link: a second one starts when the first has left.
    """

    def __init__(
        self,
        inner: Transport,
        fabric: Fabric,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner, self._fabric, self._now_s, self._sleep = inner, fabric, now_s, sleep
        self._free_s = float("-inf")
        self.rank, self.size = inner.rank, inner.size

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """Start the exchange, and compute when the slower direction would be complete."""
        payload_bytes = max(_sent(sends, self.rank).payload_bytes, _sent(receives, self.rank).payload_bytes)
        self._free_s = max(self._now_s(), self._free_s) + self._fabric.exchange_s(payload_bytes)
        return _Delayed(self._inner.exchange(sends, receives), self._free_s, self._now_s, self._sleep)


class Fault(StrEnum):
    """Ways for a rank to fail."""

    DIE = "die"
    """The process is killed, as by the kernel's out-of-memory killer."""
    STALL = "stall"
    """The process stops, sockets open, as in swap or a debugger."""


class FaultyTransport:
    """Fails at the n-th exchange, counted from 0."""

    def __init__(self, inner: Transport, fault: Fault, at_exchange: int) -> None:
        self._inner, self._fault, self._left = inner, fault, at_exchange
        self.rank, self.size = inner.rank, inner.size

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """Start exchanges until the one that fails."""
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL if self._fault is Fault.DIE else signal.SIGSTOP)
        self._left -= 1
        return self._inner.exchange(sends, receives)
