"""Attention in parts, as the baselines need it: by heads, and by keys with a running softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from cloud_node.classify.model import SPACE, TIME, Attention


def rows_along(x: Tensor, axis: int) -> Tensor:
    """[B, T, S, …] → [rows, length, …] with `axis` as length; undone by `unrows`."""
    return (x.transpose(TIME, SPACE) if axis == TIME else x).flatten(0, 1)


def unrows(rows: Tensor, batch: int, axis: int) -> Tensor:
    """Inverse of `rows_along`."""
    x = torch.unflatten(rows, 0, (batch, -1))
    return x.transpose(TIME, SPACE) if axis == TIME else x


def attend(qkv: Tensor) -> Tensor:
    """Packed [R, L, 3, h, d] → [R, L, h, d] with the fused kernel."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def attend_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """[R, h, L, d] each → output and log-sum-exp [R, h, L, 1], so that partial results can be merged."""
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out, lse.unsqueeze(-1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    lse = scores.logsumexp(-1, keepdim=True)
    return torch.exp(scores - lse) @ v, lse


def merge(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys, from the attention over each."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    lse = torch.logaddexp(lse_a, lse_b)
    return out_a * torch.exp(lse_a - lse) + out_b * torch.exp(lse_b - lse), lse


def project_qkv(attention: Attention, rows: Tensor) -> Tensor:
    """[R, L, C] → packed [R, L, 3, h, d]."""
    qkv: Tensor = attention.qkv(rows)
    return torch.unflatten(qkv, -1, (3, attention.heads, -1))
