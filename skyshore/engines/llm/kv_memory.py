"""Key-value memory: every slot reserves addresses for a full context; the kernel allocates written pages only.

Reserving virtual memory and giving pages back one slot at a time is the idea of vAttention (arXiv 2405.04437), here on
anonymous mappings of the host: attention kernels keep their contiguous rows and nothing is fragmented.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def granule_tokens(head_dim: int, item_bytes: int) -> int:
    """Tokens of one head that share a page: memory is allocated and released in steps of this many."""
    return max(1, mmap.PAGESIZE // (head_dim * item_bytes))


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Size and type of one token of cache."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: np.dtype[Any]


class KvMemory:
    """Buffers [slots, kv heads, capacity, head dim], keys and values of each layer in turn."""

    def __init__(self, shape: CacheShape, slots: int, capacity_tokens: int) -> None:
        """Reserve; `capacity_tokens` is rounded up to whole pages."""
        layers, kv_heads, head_dim, dtype = shape.layers, shape.kv_heads, shape.head_dim, shape.dtype
        granule = granule_tokens(head_dim, dtype.itemsize)
        self.granule_tokens = granule
        self.capacity_tokens = -(-capacity_tokens // granule) * granule
        self.bytes_per_token = 2 * layers * kv_heads * head_dim * dtype.itemsize
        self._head_bytes = self.capacity_tokens * head_dim * dtype.itemsize
        self._token_bytes = head_dim * dtype.itemsize
        self._kv_heads = kv_heads
        size = slots * kv_heads * self._head_bytes
        self._maps = [mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2 * layers)]
        self.buffers: list[NDArray[Any]] = [
            np.frombuffer(each, dtype=dtype).reshape(slots, kv_heads, -1, head_dim) for each in self._maps
        ]

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the tokens start..stop of one slot to the same places of another."""
        for buffer in self.buffers:
            buffer[target, :, start:stop] = buffer[source, :, start:stop]

    def release(self, slot: int, keep_tokens: int, used_tokens: int) -> None:
        """Release the pages of tokens keep..used; they read as zeros until written again."""
        first = -(-keep_tokens * self._token_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        last = min(self._head_bytes, -(-used_tokens * self._token_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        if first >= last:
            return
        for mapping in self._maps:
            for head in range(self._kv_heads):
                offset = (slot * self._kv_heads + head) * self._head_bytes
                mapping.madvise(mmap.MADV_DONTNEED, offset + first, last - first)
