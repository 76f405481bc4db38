"""Ring attention (arXiv 2310.01889): queries stay, keys and values go round; partial softmaxes are merged.

Each hop travels while the block before it is computed. 2M(N-1)/N per pair, any number of heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cloud_node.classify.model import Block
from cloud_node.dsp.baselines.attention import attend_with_lse, merge, project_qkv, rows_along, unrows
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.switch import Sharded
from cloud_node.dsp.transports.port import Pending, Transport


class RingOneDim:
    """One dimension of [B, T, S, C] is cut; attention along it is a ring, all else is local."""

    def __init__(self, blocks: list[Block], shape: tuple[int, ...], transport: Transport, dim: int) -> None:
        self._blocks, self._transport = blocks, transport
        self.start = Layout(shape).cut(dim, transport.size)

    def __call__(self, x: Sharded) -> Sharded:
        """One forward."""
        local = x.local
        for block in self._blocks:
            local = local + (self._talk(block, local) if block.axis == x.layout.dim else block.mix(local))
            local = local + block.feed(local)
        return x.like(local)

    def _talk(self, block: Block, local: Tensor) -> Tensor:
        rows = rows_along(block.norm1(local), block.axis)
        packed = project_qkv(block.attention, rows)
        q = packed[:, :, 0].transpose(1, 2)
        held = packed[:, :, 1:].contiguous()
        result: tuple[Tensor, Tensor] | None = None
        for hop in range(self._transport.size):
            ahead, coming = self._hop(held, hop)
            if held.shape[1] and q.shape[2]:
                k, v = held.permute(2, 0, 3, 1, 4)
                part = attend_with_lse(q, k, v)
                result = part if result is None else merge(result, part)
            ahead.wait()
            held = coming
        mixed = result[0].transpose(1, 2).flatten(2) if result is not None else rows
        return unrows(block.attention.out(mixed), local.shape[0], block.axis)

    def _hop(self, held: Tensor, hop: int) -> tuple[Pending, Tensor]:
        """Start passing what is held to the successor; nothing is passed after the last block arrived."""
        size, rank = self._transport.size, self._transport.rank
        sends: list[Tensor | None] = [None] * size
        receives: list[Tensor | None] = [None] * size
        coming = held
        if hop < size - 1:
            length = self.start.splits[(rank - hop - 1) % size]
            coming = torch.empty((held.shape[0], length, *held.shape[2:]), dtype=held.dtype, device=held.device)
            sends[(rank + 1) % size], receives[(rank - 1) % size] = held, coming
        return self._transport.exchange(sends, receives), coming
