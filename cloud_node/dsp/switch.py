"""The four operations of DSP on real tensors: split, switch, gather, and a switch fed piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloud_node.dsp.codec import decode, encode, wire_buffers
from cloud_node.dsp.layout import Layout, balanced
from cloud_node.dsp.transports.port import Pending, Transport
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask


@dataclass(frozen=True, slots=True)
class Sharded:
    """One rank's part of a tensor, with the layout that says which part it is."""

    local: Tensor
    layout: Layout

    def like(self, local: Tensor) -> Sharded:
        """Another tensor with the same cut, perhaps of another token width."""
        return Sharded(local, self.layout.with_channels(local.shape[-1]))


def split(whole: Tensor, dim: int, transport: Transport) -> Sharded:
    """Keep this rank's part of a tensor that every rank holds; nothing is sent."""
    layout = Layout(tuple(whole.shape)).cut(dim, transport.size)
    return Sharded(whole.narrow(dim, *layout.span(transport.rank)).contiguous(), layout)


def switch(x: Sharded, to_dim: int, transport: Transport, wire: Wire = Wire.EXACT) -> Sharded:
    """Cut along `to_dim` instead, by one all-to-all. The paper's dynamic switch; also batch ↔ sequence for T = 1.

    Raises:
        InvalidTask: `to_dim` cannot be cut, or the local tensor is not what its layout says.
        NodeUnavailable, DeadlineExceeded: a peer failed.
    """
    if to_dim == x.layout.dim:
        return x
    flight = SwitchInFlight(x.layout, to_dim, transport, wire, like=x.local)
    flight.send(x.local)
    return flight.finish()


def gather(x: Sharded, transport: Transport) -> Tensor:
    """The whole tensor on every rank, by an all-gather of unequal parts."""
    _check_part(x.local, x.layout.local_shape(transport.rank))
    dim, own = x.layout.dim, x.local.contiguous()
    if dim is None:
        return own
    parts = [
        torch.empty(x.layout.local_shape(peer), dtype=own.dtype, device=own.device) for peer in range(transport.size)
    ]
    transport.exchange([own] * transport.size, list(parts)).wait()
    return torch.cat(parts, dim)


class SwitchInFlight:
    """A switch whose input arrives in pieces along its cut dimension, so that pieces travel while others are computed.

    Every rank feeds the same number of pieces, cut by `piece_sizes`; some may be empty. The output's owner is this
    object until `finish` hands it over.
    """

    def __init__(
        self, source: Layout, to_dim: int, transport: Transport, wire: Wire, *, like: Tensor, pieces: int = 1
    ) -> None:
        if source.dim is None or source.ranks != transport.size:
            raise InvalidTask(f"a tensor cut for {source.ranks} ranks cannot be switched by {transport.size}")
        self._source, self._target = source, source.cut(to_dim, transport.size)
        self._from, self._to = source.dim, to_dim
        self._transport, self._wire, self._pieces = transport, wire, pieces
        shape = self._target.local_shape(transport.rank)
        self._out = torch.empty(shape, dtype=like.dtype, device=like.device)
        self._pending: list[Pending] = []
        self._landing: list[list[tuple[Tensor, Tensor]]] = []
        self._kept: list[list[Tensor | None]] = []

    def piece_sizes(self, rank: int) -> tuple[int, ...]:
        """Sizes of a rank's pieces along the source's cut dimension."""
        return balanced(self._source.splits[rank], self._pieces)

    def send(self, piece: Tensor) -> None:
        """Start the exchange of the next piece."""
        shape = list(self._source.local_shape(self._transport.rank))
        shape[self._from] = self.piece_sizes(self._transport.rank)[len(self._pending)]
        _check_part(piece, tuple(shape))
        sends, receives = self._packed(piece), self._receives(piece)
        self._kept.append(sends)
        self._pending.append(self._transport.exchange(sends, receives))

    def finish(self) -> Sharded:
        """Wait for all pieces and return the tensor in its new layout."""
        if len(self._pending) != self._pieces:
            raise InvalidTask(f"a switch of {self._pieces} pieces was fed {len(self._pending)}")
        for pending, landing in zip(self._pending, self._landing, strict=True):
            pending.wait()
            for buffer, part in landing:
                decode(buffer, self._wire, part)
        return Sharded(self._out, self._target)

    def _packed(self, piece: Tensor) -> list[Tensor | None]:
        """Wire buffers by peer: views where the block lies contiguous already, packed copies elsewhere."""
        blocks = [piece.narrow(self._to, *self._target.span(peer)) for peer in range(self._transport.size)]
        if self._wire is Wire.EXACT and all(block.is_contiguous() for block in blocks):
            return list(blocks)
        buffers = wire_buffers([block.shape for block in blocks], self._wire, piece)
        for block, buffer in zip(blocks, buffers, strict=True):
            encode(block, self._wire, buffer)
        return list(buffers)

    def _receives(self, piece: Tensor) -> list[Tensor | None]:
        """Receive buffers by peer: parts of the output where those are contiguous, else buffers to copy from later."""
        index, parts = len(self._pending), []
        for peer in range(self._transport.size):
            sizes = self.piece_sizes(peer)
            start = self._source.span(peer)[0] + sum(sizes[:index])
            parts.append(self._out.narrow(self._from, start, sizes[index]))
        if self._wire is Wire.EXACT and all(part.is_contiguous() for part in parts):
            self._landing.append([])
            return list(parts)
        buffers = wire_buffers([part.shape for part in parts], self._wire, piece)
        self._landing.append(list(zip(buffers, parts, strict=True)))
        return list(buffers)


def _check_part(local: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(local.shape) != expected:
        raise InvalidTask(f"this rank's part has shape {tuple(local.shape)}, its layout says {expected}")
