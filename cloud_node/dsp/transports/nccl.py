"""NCCL: one grouped launch of sends and receives on the accelerator's stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from cloud_node.dsp.transports.port import Done, Pending, check_slots, copy_own, to_peers
from cloud_node.dsp.transports.torch_errors import wait_for


@dataclass(frozen=True, slots=True)
class _Grouped:
    works: tuple[dist.Work, ...]
    buffers: tuple[Tensor | None, ...]
    timeout_s: float

    def wait(self) -> None:
        """Order the current stream after the exchange, then wait for the host to see it done.

        The stream wait alone would return while a peer hangs and leave the failure to the next kernel.
        """
        for work in self.works:
            wait_for(work, self.timeout_s)
        torch.cuda.current_stream().synchronize()


class NcclTransport:
    """All ranks of one NCCL process group."""

    def __init__(self, group: dist.ProcessGroup | None = None, *, timeout_s: float = 30.0) -> None:
        self._group = group
        self._timeout_s = timeout_s
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`."""
        check_slots(sends, receives, self.size)
        copy_own(sends, receives, self.rank)
        operations = [
            dist.P2POp(verb, buffer, group=self._group, group_peer=peer)
            for verb, slots in ((dist.irecv, receives), (dist.isend, sends))
            for peer, buffer in to_peers(slots, self.rank)
        ]
        if not operations:
            return Done()
        works = tuple(dist.batch_isend_irecv(operations))
        return _Grouped(works, (*sends, *receives), self._timeout_s)
