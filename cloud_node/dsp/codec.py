"""Writes numbers into wire buffers and reads them back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from cloud_node.dsp.wire import SCALE_BYTES, Wire

_WIRE_DTYPE = {Wire.FP16: torch.float16, Wire.BF16: torch.bfloat16, Wire.INT8: torch.int8}


def wire_buffers(shapes: Sequence[Sequence[int]], wire: Wire, like: Tensor) -> list[Tensor]:
    """One flat buffer per block, side by side in one allocation; `like` gives device and, when exact, dtype."""
    extra = SCALE_BYTES if wire is Wire.INT8 else 0
    sizes = [prod(shape[:-1]) * (shape[-1] + extra) for shape in shapes]
    whole = torch.empty(sum(sizes), dtype=_WIRE_DTYPE.get(wire, like.dtype), device=like.device)
    return list(torch.split(whole, sizes))


def encode(block: Tensor, wire: Wire, out: Tensor) -> None:
    """Write `block` (…, C; any strides) into the flat buffer `out`."""
    if wire is not Wire.INT8:
        out.view(block.shape).copy_(block)
        return
    # The smallest normal number instead of 0 keeps an all-zero token at zero without a branch.
    tiny = torch.finfo(torch.float32).tiny
    scale = block.abs().amax(-1, keepdim=True).float().div_(127.0).clamp_min_(tiny)
    cut = scale.numel() * SCALE_BYTES
    out[:cut].copy_(scale.view(-1).view(torch.int8))
    out[cut:].view(block.shape).copy_(torch.round(block / scale))


def decode(buffer: Tensor, wire: Wire, out: Tensor) -> None:
    """Write the numbers in the flat `buffer` into `out` (…, C; any strides)."""
    if wire is not Wire.INT8:
        out.copy_(buffer.view(out.shape))
        return
    cut = prod(out.shape[:-1]) * SCALE_BYTES
    # The clone aligns: neighbours in the allocation may leave this buffer at an odd address.
    scale = buffer[:cut].clone().view(torch.float32).view(*out.shape[:-1], 1)
    out.copy_(buffer[cut:].view(out.shape) * scale)
