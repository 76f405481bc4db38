"""Megatron-style tensor and sequence parallelism (arXiv 1909.08053, 2205.05198).

Heads and hidden units are cut, tokens between them: each half block all-gathers its input and reduce-scatters its
output, 8M(N-1)/N per pair. Parameters shrink to 1/N, which no other method here does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from cloud_node.classify.model import Block
from cloud_node.dsp.baselines.attention import attend, rows_along, unrows
from cloud_node.dsp.baselines.ulysses import check_heads
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.switch import Sharded, gather
from cloud_node.dsp.transports.port import Transport


class _BlockShard:
    """One rank's slices of a block's weights; biases after the reduction are added once."""

    def __init__(self, block: Block, rank: int, size: int) -> None:
        check_heads(block, size)
        self.block = block
        attention, channels = block.attention, block.norm1.normalized_shape[0]
        width = channels // size
        mine = slice(rank * width, (rank + 1) * width)
        self.qkv = attention.qkv.weight.view(3, channels, channels)[:, mine].reshape(3 * width, channels)
        self.qkv_bias = attention.qkv.bias.view(3, channels)[:, mine].reshape(3 * width)
        self.out = attention.out.weight[:, mine].contiguous()
        hidden = slice(rank * 4 * width, (rank + 1) * 4 * width)
        self.up, self.up_bias = block.up.weight[hidden], block.up.bias[hidden]
        self.down = block.down.weight[:, hidden].contiguous()
        self._heads = attention.heads // size

    def mix(self, whole: Tensor) -> Tensor:
        """Partial attention output of these heads over the whole activation, bias left out."""
        axis = self.block.axis
        packed = F.linear(rows_along(whole, axis), self.qkv, self.qkv_bias)
        qkv = torch.unflatten(packed, -1, (3, self._heads, -1))
        return unrows(F.linear(attend(qkv).flatten(2), self.out), whole.shape[0], axis)

    def feed(self, whole: Tensor) -> Tensor:
        """Partial feed-forward output of these hidden units, bias left out."""
        return F.linear(F.gelu(F.linear(whole, self.up, self.up_bias)), self.down)


class MegatronParallel:
    """Sequence-parallel norms and residuals, tensor-parallel attention and feed-forward."""

    def __init__(self, blocks: list[Block], shape: tuple[int, ...], transport: Transport, dim: int) -> None:
        self._transport = transport
        self._shards = [_BlockShard(block, transport.rank, transport.size) for block in blocks]
        self.start = Layout(shape).cut(dim, transport.size)

    def __call__(self, x: Sharded) -> Sharded:
        """One forward."""
        local = x.local
        for shard in self._shards:
            block = shard.block
            whole = gather(x.like(block.norm1(local)), self._transport)
            local = local + self._reduce_scatter(shard.mix(whole)) + block.attention.out.bias
            whole = gather(x.like(block.norm2(local)), self._transport)
            local = local + self._reduce_scatter(shard.feed(whole)) + block.down.bias
        return x.like(local)

    def _reduce_scatter(self, partial: Tensor) -> Tensor:
        """Sum of all ranks' partial results, for this rank's part; as an all-to-all, half of what gloo's own sends."""
        dim, own = self.start.dim or 0, self._transport.rank
        sends = [part.contiguous() for part in partial.split_with_sizes(list(self.start.splits), dim)]
        receives = [torch.empty_like(sends[own]) for _ in sends]
        self._transport.exchange(sends, receives).wait()
        return torch.stack(receives).sum(0)
