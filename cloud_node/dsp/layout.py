"""Which rank holds which part of a tensor, as a value that travels with it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from skyshore.domain.errors import InvalidTask


def balanced(size: int, ranks: int) -> tuple[int, ...]:
    """Sizes of `ranks` consecutive parts of `size` that differ by at most one; larger parts first, empty parts last."""
    if size < 0 or ranks < 1:
        raise InvalidTask(f"cannot split {size} items over {ranks} ranks")
    quotient, extra = divmod(size, ranks)
    return tuple(quotient + (rank < extra) for rank in range(ranks))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of one tensor are: the shape of the whole, the cut dimension and the size of each rank's part.

    The last dimension is the channel dimension; a vector along it is a token and never cut.

    Raises:
        InvalidTask: the dimension cannot be cut or the parts do not add up to it.
    """

    shape: tuple[int, ...]
    """Shape of the whole tensor, the same on every rank."""
    dim: int | None = None
    """The cut dimension; None means every rank holds the whole."""
    splits: tuple[int, ...] = ()
    """Part size along `dim`, one per rank; empty when `dim` is None."""

    def __post_init__(self) -> None:
        if self.dim is None:
            if self.splits:
                raise InvalidTask("a whole tensor has no splits; name the cut dimension or drop them")
            return
        if not 0 <= self.dim < len(self.shape) - 1:
            raise InvalidTask(f"dimension {self.dim} of {self.shape} cannot be cut: only 0..{len(self.shape) - 2} can")
        if min(self.splits, default=-1) < 0 or sum(self.splits) != self.shape[self.dim]:
            raise InvalidTask(f"splits {self.splits} do not add up to {self.shape[self.dim]} (dimension {self.dim})")

    def cut(self, dim: int, ranks: int) -> Layout:
        """The same tensor cut along `dim` into balanced parts."""
        if not 0 <= dim < len(self.shape) - 1:
            raise InvalidTask(f"dimension {dim} of {self.shape} cannot be cut: only 0..{len(self.shape) - 2} can")
        return Layout(self.shape, dim, balanced(self.shape[dim], ranks))

    def whole(self) -> Layout:
        """The same tensor, held entirely by every rank."""
        return Layout(self.shape)

    def with_channels(self, channels: int) -> Layout:
        """The same cut of a tensor whose tokens have another width."""
        return Layout((*self.shape[:-1], channels), self.dim, self.splits)

    @property
    def channels(self) -> int:
        """Width of a token."""
        return self.shape[-1]

    @property
    def ranks(self) -> int:
        """Number of parts; 1 for a whole tensor."""
        return len(self.splits) or 1

    def span(self, rank: int) -> tuple[int, int]:
        """Start and size of a rank's part along the cut dimension."""
        if self.dim is None:
            raise InvalidTask("a whole tensor has no parts")
        return sum(self.splits[:rank]), self.splits[rank]

    def local_shape(self, rank: int) -> tuple[int, ...]:
        """Shape of what `rank` holds."""
        if self.dim is None:
            return self.shape
        return (*self.shape[: self.dim], self.splits[rank], *self.shape[self.dim + 1 :])

    def tokens(self, rank: int) -> int:
        """Number of tokens `rank` holds."""
        return prod(self.local_shape(rank)[:-1])

    def shared_tokens(self, rank: int, other: Layout, peer: int) -> int:
        """Tokens that `rank` holds under this layout and `peer` needs under `other`, which cuts another dimension."""
        if self.dim is None or other.dim is None or self.dim == other.dim:
            raise InvalidTask("two different cut dimensions are needed")
        rest = prod(size for axis, size in enumerate(self.shape[:-1]) if axis not in (self.dim, other.dim))
        return rest * self.splits[rank] * other.splits[peer]
