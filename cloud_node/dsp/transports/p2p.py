"""Our own exchange over torch.distributed's point-to-point calls, every receive posted before any send.

Gloo moves both directions of a pair over one TCP stream, and "ready to receive" notices queue behind bulk data. Posting
receives first lets the notices travel while the stream is idle, so both directions of the link fill at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from cloud_node.dsp.transports.port import Pending, check_slots, copy_own, to_peers
from cloud_node.dsp.transports.torch_errors import wait_for


@dataclass(frozen=True, slots=True)
class _Works:
    """Outstanding receives and sends, with the buffers they use."""

    works: tuple[dist.Work, ...]
    buffers: tuple[Tensor | None, ...]
    timeout_s: float

    def wait(self) -> None:
        """Wait for each; see `Pending.wait`."""
        for work in self.works:
            wait_for(work, self.timeout_s)


class P2PTransport:
    """A group of some (or all) ranks of the default process group, over gloo.

    Works for any subset without creating a process group, so a service can form and drop groups per request.
    """

    def __init__(
        self,
        ranks: Sequence[int] | None = None,
        *,
        timeout_s: float = 30.0,
        first_tag: int = 0,
        receives_first: bool = True,
    ) -> None:
        """A view of the group from this process.

        Args:
            ranks: Default-group ranks in group order; None means all.
            timeout_s: Longest wait for a peer.
            first_tag: Keeps the messages of successive groups apart.
            receives_first: False posts sends first, which the bench does to show what the order is worth.
        """
        self._ranks = tuple(ranks) if ranks is not None else tuple(range(dist.get_world_size()))
        self._timeout_s = timeout_s
        self._tag = first_tag
        self._receives_first = receives_first
        self.rank = self._ranks.index(dist.get_rank())
        self.size = len(self._ranks)

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`."""
        check_slots(sends, receives, self.size)
        self._tag += 1
        order = [(dist.irecv, receives), (dist.isend, sends)]
        works = [
            verb(buffer, self._ranks[peer], tag=self._tag)
            for verb, slots in (order if self._receives_first else reversed(order))
            for peer, buffer in to_peers(slots, self.rank)
        ]
        copy_own(sends, receives, self.rank)
        return _Works(tuple(work for work in works if work is not None), (*sends, *receives), self._timeout_s)
