"""DeepSpeed-Ulysses (arXiv 2309.14509): heads are cut while attention runs, tokens otherwise.

Queries, keys and values travel in one message each way. With one dimension cut, only the attention along it talks
(4M(N-1)/N² per pair); with time and space flattened into one sequence, as the DSP paper runs it, both do (8M(N-1)/N²).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cloud_node.classify.model import Attention, Block
from cloud_node.dsp.baselines.attention import attend, project_qkv, rows_along, unrows
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.switch import Sharded
from cloud_node.dsp.transports.port import Transport
from skyshore.domain.errors import InvalidTask


def check_heads(block: Block, ranks: int) -> None:
    """Refuse a model whose heads cannot be divided among the ranks.

    Raises:
        InvalidTask: heads do not divide by the number of ranks.
    """
    if block.attention.heads % ranks:
        raise InvalidTask(f"{block.attention.heads} heads cannot be shared by {ranks} ranks; DSP has no such rule")


def heads_attention(
    attention: Attention,
    rows: Tensor,
    splits: tuple[int, ...],
    transport: Transport,
    inner: Callable[[Tensor], Tensor] = attend,
) -> Tensor:
    """Attention over rows [R, l, C] whose length is cut by `splits`; `inner` sees whole rows and some heads."""
    size, own = transport.size, transport.rank
    packed = project_qkv(attention, rows)
    sends = [part.contiguous() for part in packed.chunk(size, dim=3)]
    shape = list(sends[0].shape)
    receives = [packed.new_empty([shape[0], length, *shape[2:]]) for length in splits]
    transport.exchange(sends, receives).wait()
    mixed = inner(torch.cat(receives, 1))
    outward = [part.contiguous() for part in mixed.split_with_sizes(list(splits), 1)]
    returned = [torch.empty_like(outward[own]) for _ in range(size)]
    transport.exchange(outward, returned).wait()
    y: Tensor = attention.out(torch.cat(returned, 2).flatten(2))
    return y


class UlyssesOneDim:
    """One dimension of [B, T, S, C] is cut all the way through."""

    def __init__(self, blocks: list[Block], shape: tuple[int, ...], transport: Transport, dim: int) -> None:
        check_heads(blocks[0], transport.size)
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
        mixed = heads_attention(block.attention, rows, self.start.splits, self._transport)
        return unrows(mixed, local.shape[0], block.axis)


class UlyssesFlattened:
    """Time and space are one sequence [B, T·S, C]; every attention talks."""

    def __init__(self, blocks: list[Block], shape: tuple[int, ...], transport: Transport) -> None:
        check_heads(blocks[0], transport.size)
        self._blocks, self._transport = blocks, transport
        self._time = shape[1]
        self.start = Layout((shape[0], shape[1] * shape[2], shape[3])).cut(1, transport.size)

    def __call__(self, x: Sharded) -> Sharded:
        """One forward."""
        local = x.local
        for block in self._blocks:
            local = local + self._talk(block, local)
            local = local + block.feed(local)
        return x.like(local)

    def _talk(self, block: Block, local: Tensor) -> Tensor:
        def inner(qkv: Tensor) -> Tensor:
            grid = torch.unflatten(qkv, 1, (self._time, -1))
            mixed = attend(rows_along(grid, block.axis))
            return unrows(mixed, grid.shape[0], block.axis).flatten(1, 2)

        return heads_attention(block.attention, block.norm1(local), self.start.splits, self._transport, inner)
