"""A space–time transformer with divided attention. It contains no code for sharding.

Tokens are [B, T, S, C]: batch, time, space, channels. A spatial block mixes along S, a temporal block along T, all else
is token-wise; which is all that DSP needs. Blocks follow TimeSformer's divided attention (arXiv 2102.05095) with a
feed-forward part in both, as the DSP paper counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from cloud_node.dsp.cost import attention_flops_per_token, feed_flops_per_token
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.plan import ModelStage

BATCH, TIME, SPACE = 0, 1, 2
"""Dimensions of the token tensor."""

CHANNELS_IN = 5
"""Red, green, blue, change, drift of change: what `SpaceTimeTransformer.patches` makes of a pixel."""

_SMALLEST_GEMM = 16
"""With fewer rows CPU libraries use kernels that add in another order: MKL up to 10 rows on a processor with AMX."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a model; frames are RGB."""

    frames: int = 8
    height: int = 48
    width: int = 48
    patch: int = 12
    channels: int = 64
    heads: int = 4
    pairs: int = 2
    labels: int = 8
    colour_gain: float = 1 / 512
    """Gain of the colours relative to the changes; a model of single frames, which has no changes, needs 1/128."""

    @property
    def space(self) -> int:
        """Patches of a frame (S)."""
        return (self.height // self.patch) * (self.width // self.patch)

    def token_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape of the activation."""
        return batch, self.frames, self.space, self.channels


class RowLinear(nn.Linear):
    """A linear layer whose every row is independent of how many rows come with it, bit for bit.

    A shard may hold one or two tokens; their numbers must not differ from those of the same tokens in a full batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        rows = x.numel() // self.in_features
        if torch.compiler.is_exporting() or rows >= _SMALLEST_GEMM:
            return F.linear(x, self.weight, self.bias)
        padded = F.pad(x.reshape(rows, self.in_features), (0, 0, 0, _SMALLEST_GEMM - rows))
        return F.linear(padded, self.weight, self.bias)[:rows].view(*x.shape[:-1], self.out_features)


class Attention(nn.Module):
    """Multi-head self-attention within rows [R, L, C]; rows never see each other."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = RowLinear(channels, 3 * channels)
        self.out = RowLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[R, L, C] → [R, L, C]."""
        rows, length, channels = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, length, channels))
        return y


class Block(nn.Module):
    """Two residual branches: attention along `axis`, then a feed-forward layer. Pre-norm."""

    def __init__(self, channels: int, heads: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.norm1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.up = RowLinear(channels, 4 * channels)
        self.down = RowLinear(4 * channels, channels)

    def mix(self, x: Tensor) -> Tensor:
        """Attention branch; [B, T, S, C] with `axis` whole."""
        y = self.norm1(x)
        if self.axis == TIME:
            y = y.transpose(TIME, SPACE)
        mixed: Tensor = self.attention(y.flatten(0, 1)).view(y.shape)
        return mixed.transpose(TIME, SPACE) if self.axis == TIME else mixed

    def feed(self, x: Tensor) -> Tensor:
        """Feed-forward branch; token-wise."""
        y: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Both branches with their residual sums."""
        x = x + self.mix(x)
        return x + self.feed(x)


class SpaceTimeTransformer(nn.Module):
    """Patches in, one logit per label out. Position tables reach as far as the configuration's T and S."""

    level_offset: Tensor
    level_gain: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config.channels
        self.config = config
        self.embedding = RowLinear(config.patch**2 * CHANNELS_IN, c)
        # Few pixels move, and those by a few levels; without scaling the colours would outweigh them.
        self.register_buffer("level_offset", torch.tensor([128.0, 128.0, 128.0, 0.0, 128.0]), persistent=False)
        gains = [config.colour_gain] * 3 + [1 / 16, 1 / 8]
        self.register_buffer("level_gain", torch.tensor(gains), persistent=False)
        self.time_position = nn.Parameter(torch.randn(config.frames, c) * 0.3)
        self.space_position = nn.Parameter(torch.randn(config.space, c) * 0.3)
        axes = (SPACE, TIME) * config.pairs
        self.blocks = nn.ModuleList([Block(c, config.heads, axis) for axis in axes])
        self.norm = nn.LayerNorm(c)
        self.head = RowLinear(c, config.labels)

    def patches(self, frames: Tensor) -> Tensor:
        """RGB frames [B, T, H, W, 3], 8-bit → raw patches [B, T, S, 5·patch²], 8-bit.

        Two channels are added: how much a pixel changed since the frame before, and how that differs from the change
        before it (halved, offset by 128), whose dipole points in the direction of motion. They are made here, from
        whole clips, so that a rank which holds some frames needs no frames of its neighbours.
        """
        b, t, h, w, _ = frames.shape
        p = self.config.patch
        now = frames.to(torch.int16)
        change = torch.diff(now, dim=TIME, prepend=now[:, :1]).abs().amax(-1, keepdim=True)
        drift = torch.diff(change, dim=TIME, prepend=change[:, :1]) // 2 + 128
        pixels = torch.cat((frames, change.to(torch.uint8), drift.to(torch.uint8)), -1)
        grid = pixels.view(b, t, h // p, p, w // p, p, CHANNELS_IN).permute(0, 1, 2, 4, 3, 5, 6)
        return grid.reshape(b, t, (h // p) * (w // p), p * p * CHANNELS_IN)

    def embed(self, patches: Tensor, time_start: int = 0, space_start: int = 0) -> Tensor:
        """Patches of some part of the clip → tokens; the starts say which part."""
        levels = torch.unflatten(patches, -1, (-1, CHANNELS_IN)).to(self.embedding.weight.dtype)
        scaled = ((levels - self.level_offset) * self.level_gain).flatten(-2)
        time = self.time_position[time_start : time_start + patches.shape[TIME]]
        space = self.space_position[space_start : space_start + patches.shape[SPACE]]
        tokens: Tensor = self.embedding(scaled) + time[:, None] + space
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens → one logit per label and token. Token-wise: a gather after it moves `labels`, not C, channels."""
        logits: Tensor = self.head(self.norm(tokens))
        return logits

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B, T, H, W, 3], 8-bit → logits [B, labels]."""
        tokens = self.embed(self.patches(frames))
        for block in self.blocks:
            tokens = block(tokens)
        return pool(self.project(tokens))

    def spatial_temporal_blocks(self) -> list[Block]:
        """The blocks in order, typed."""
        return [block for block in self.blocks if isinstance(block, Block)]


def pool(token_logits: Tensor) -> Tensor:
    """Mean of the tokens' votes: [B, T, S, labels] → [B, labels]."""
    return token_logits.flatten(1, 2).mean(1)


def branches(blocks: list[Block]) -> list[Callable[[Tensor], Tensor]]:
    """The residual branches in order, as `PlanRunner` takes them."""
    return [branch for block in blocks for branch in (block.mix, block.feed)]


def stages(blocks: list[Block], shape: tuple[int, ...]) -> list[ModelStage]:
    """The same branches as the planner sees them, for an activation of `shape`."""
    channels = shape[-1]
    listed = []
    for index, block in enumerate(blocks):
        name = f"{'temporal' if block.axis == TIME else 'spatial'}{index}"
        mixing = attention_flops_per_token(channels, shape[block.axis])
        listed += [
            ModelStage(name, block.axis, mixing),
            ModelStage(f"feed{index}", None, feed_flops_per_token(channels)),
        ]
    return listed


def part_start(layout: Layout, rank: int) -> tuple[int, int]:
    """Where a rank's part begins in time and space."""
    start = layout.span(rank)[0]
    return (start if layout.dim == TIME else 0), (start if layout.dim == SPACE else 0)
