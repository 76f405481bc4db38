"""Ranks as threads of one process: real data movement without processes, for tests, examples and one-GPU runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from cloud_node.dsp.transports.port import Pending, Transport, check_slots, copy_own, to_peers
from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable

Answer = TypeVar("Answer")
_Mail = tuple[int, Tensor]


@dataclass(slots=True)
class _Hub:
    """Mail boxes of a group, one per ordered pair of ranks."""

    size: int
    timeout_s: float
    dead: threading.Event = field(default_factory=threading.Event)
    boxes: dict[tuple[int, int], queue.SimpleQueue[_Mail]] = field(init=False)

    def __post_init__(self) -> None:
        pairs = [(source, target) for source in range(self.size) for target in range(self.size)]
        self.boxes = {pair: queue.SimpleQueue() for pair in pairs}

    def take(self, source: int, target: int) -> _Mail:
        """Next mail, waiting in short turns so that a death elsewhere is noticed."""
        turn_s = 0.01
        for _ in range(max(1, int(self.timeout_s / turn_s))):
            try:
                return self.boxes[source, target].get(timeout=turn_s)
            except queue.Empty:
                if self.dead.is_set():
                    raise NodeUnavailable(f"rank {source} of the group failed; run the request again") from None
        raise DeadlineExceeded(f"rank {source} sent nothing to rank {target} for {self.timeout_s} s")


@dataclass(slots=True)
class _Arrivals:
    """Receives of one exchange."""

    hub: _Hub
    rank: int
    sequence: int
    receives: Sequence[Tensor | None]

    def wait(self) -> None:
        """Copy what peers sent into the receive buffers."""
        for peer, target in to_peers(self.receives, self.rank):
            sequence, payload = self.hub.take(peer, self.rank)
            if sequence != self.sequence or payload.numel() != target.numel() or payload.dtype != target.dtype:
                raise Internal(f"rank {self.rank} got another message from rank {peer} than it waited for")
            target.view(-1).copy_(payload.view(-1))


class ThreadsTransport:
    """One thread's view of the group. Sends copy at once, so they never block."""

    def __init__(self, hub: _Hub, rank: int) -> None:
        self._hub = hub
        self._sequence = 0
        self.rank = rank
        self.size = hub.size

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`."""
        check_slots(sends, receives, self.size)
        self._sequence += 1
        for peer, buffer in to_peers(sends, self.rank):
            self._hub.boxes[self.rank, peer].put((self._sequence, buffer.clone()))
        copy_own(sends, receives, self.rank)
        return _Arrivals(self._hub, self.rank, self._sequence, receives)


def run_ranks(size: int, program: Callable[[Transport], Answer], timeout_s: float = 30.0) -> list[Answer]:
    """Run `program` once per rank, each on its own thread, and return the answers in rank order.

    Raises:
        Exception: what the first failing rank raised; the others are woken and end with `NodeUnavailable`.
    """
    hub = _Hub(size, timeout_s)

    def guarded(rank: int) -> Answer:
        try:
            return program(ThreadsTransport(hub, rank))
        except BaseException:
            hub.dead.set()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(guarded, rank) for rank in range(size)]
    failures = [failure for future in futures if (failure := future.exception()) is not None]
    if failures:
        raise next((failure for failure in failures if not isinstance(failure, NodeUnavailable)), failures[0])
    return [future.result() for future in futures]
