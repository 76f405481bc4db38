"""gloo's own all_to_all_single. Kept as the reference for `p2p`, which replaces it as default on CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from cloud_node.dsp.transports.port import Done, Pending, check_slots, has_bytes
from cloud_node.dsp.transports.torch_errors import wait_for


@dataclass(frozen=True, slots=True)
class _Collective:
    work: dist.Work
    sent: Tensor
    landed: Tensor
    receives: tuple[Tensor | None, ...]
    sizes: list[int]
    in_place: bool
    timeout_s: float

    def wait(self) -> None:
        """Wait, then copy into the receive buffers unless they lie side by side already."""
        wait_for(self.work, self.timeout_s)
        if self.in_place:
            return
        for buffer, part in zip(self.receives, torch.split(self.landed, self.sizes), strict=True):
            if has_bytes(buffer) and part.numel():
                buffer.view(-1).copy_(part)


class GlooTransport:
    """All ranks of one process group, over its all-to-all collective."""

    def __init__(self, group: dist.ProcessGroup | None = None, *, timeout_s: float = 30.0) -> None:
        self._group = group
        self._timeout_s = timeout_s
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`. Every rank must call it, even with nothing to send: it is a collective."""
        check_slots(sends, receives, self.size)
        outgoing, send_sizes = _side_by_side(sends) or _copied(sends)
        found = _side_by_side(receives)
        landed, sizes = found or _uninitialised(receives, outgoing)
        work = dist.all_to_all_single(landed, outgoing, sizes, send_sizes, group=self._group, async_op=True)
        if work is None:
            return Done()
        return _Collective(work, outgoing, landed, tuple(receives), sizes, found is not None, self._timeout_s)


def _sizes(buffers: Sequence[Tensor | None]) -> list[int]:
    return [0 if buffer is None else buffer.numel() for buffer in buffers]


def _side_by_side(buffers: Sequence[Tensor | None]) -> tuple[Tensor, list[int]] | None:
    """One flat view over buffers that follow each other in memory; None if they do not."""
    full = [buffer for buffer in buffers if has_bytes(buffer)]
    if not full:
        return None
    follow = all(a.data_ptr() + a.nbytes == b.data_ptr() for a, b in pairwise(full))
    if not follow or len({buffer.untyped_storage().data_ptr() for buffer in full}) > 1:
        return None
    sizes = _sizes(buffers)
    return full[0].as_strided((sum(sizes),), (1,), full[0].storage_offset()), sizes


def _copied(buffers: Sequence[Tensor | None]) -> tuple[Tensor, list[int]]:
    full = [buffer.view(-1) for buffer in buffers if has_bytes(buffer)]
    return torch.cat(full) if full else torch.empty(0), _sizes(buffers)


def _uninitialised(buffers: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, list[int]]:
    sizes = _sizes(buffers)
    return torch.empty(sum(sizes), dtype=like.dtype, device=like.device), sizes
