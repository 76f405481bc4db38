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

    def __init__(self, ranks: Sequence[int] | None = None, *, timeout_s: float = 30.0, first_tag: int = 0) -> None:
        """`ranks` are default-group ranks in group order; `first_tag` keeps successive groups' messages apart."""
        self._ranks = tuple(ranks) if ranks is not None else tuple(range(dist.get_world_size()))
        self._timeout_s = timeout_s
        self._tag = first_tag
        self.rank = self._ranks.index(dist.get_rank())
        self.size = len(self._ranks)

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`."""
        check_slots(sends, receives, self.size)
        self._tag += 1
        works = [dist.irecv(buffer, self._ranks[p], tag=self._tag) for p, buffer in to_peers(receives, self.rank)]
        works += [dist.isend(buffer, self._ranks[p], tag=self._tag) for p, buffer in to_peers(sends, self.rank)]
        copy_own(sends, receives, self.rank)
        return _Works(tuple(work for work in works if work is not None), (*sends, *receives), self._timeout_s)
