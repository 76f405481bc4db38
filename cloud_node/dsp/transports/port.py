"""The one operation of every transport. All collectives of this package and of the baselines use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

from torch import Tensor

from skyshore.domain.errors import InvalidTask


class Pending(Protocol):
    """An exchange under way."""

    def wait(self) -> None:
        """Return when every receive buffer is filled and every send buffer may be reused.

        Raises:
            NodeUnavailable: a peer died.
            DeadlineExceeded: a peer did not answer within the transport's time limit.
        """
        ...


class Transport(Protocol):
    """A group of ranks, seen from one of them. All ranks start the same exchanges in the same order."""

    @property
    def rank(self) -> int:
        """This rank's index in the group."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks in the group."""
        ...

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """Start sending `sends[peer]` to each peer while receiving `receives[peer]` from it.

        Buffers are contiguous; None and empty buffers carry no message; a send and its receive agree in bytes. The
        rank's own slot is copied locally. Buffers must live until `wait` returned.
        """
        ...


class Done:
    """An exchange that needed no waiting."""

    def wait(self) -> None:
        """Return at once."""


class SoloTransport:
    """A group of one rank: nothing is sent."""

    rank = 0
    size = 1

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """See `Transport.exchange`."""
        check_slots(sends, receives, 1)
        copy_own(sends, receives, 0)
        return Done()


def check_slots(sends: Sequence[Tensor | None], receives: Sequence[Tensor | None], size: int) -> None:
    """Refuse buffers whose bytes would be read or written in the wrong order.

    Raises:
        InvalidTask: a slot is missing or a buffer is not contiguous.
    """
    if len(sends) != size or len(receives) != size:
        raise InvalidTask(f"an exchange among {size} ranks got {len(sends)} send and {len(receives)} receive slots")
    for buffer in (*sends, *receives):
        if buffer is not None and not buffer.is_contiguous():
            raise InvalidTask(f"an exchange needs contiguous buffers; call .contiguous() on the one of {buffer.shape}")


def copy_own(sends: Sequence[Tensor | None], receives: Sequence[Tensor | None], rank: int) -> None:
    """Fill the rank's own receive slot from its own send slot."""
    source, target = sends[rank], receives[rank]
    if source is not None and target is not None and source.data_ptr() != target.data_ptr():
        target.view(-1).copy_(source.view(-1))


def to_peers(slots: Sequence[Tensor | None], rank: int) -> list[tuple[int, Tensor]]:
    """(peer, buffer) of every message, successor first, so that no rank is everybody's first target."""
    order = [(rank + step) % len(slots) for step in range(1, len(slots))]
    return [(peer, buffer) for peer in order if has_bytes(buffer := slots[peer])]


def has_bytes(buffer: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a slot carries a message."""
    return buffer is not None and buffer.numel() > 0
