"""Predicted time of a sharded run: the α–β model of a link and the FLOPs of space–time block pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skyshore.domain.errors import InvalidTask


@dataclass(frozen=True, slots=True)
class Fabric:
    """Ranks and the link between them, as measured or assumed; every prediction states these three numbers."""

    flops_per_s: float
    """Floating-point operations per second of one rank on this kind of work (R)."""
    bytes_per_s: float
    """Bytes per second one rank can send while it receives as much (β)."""
    alpha_s: float = 0.0
    """Fixed cost of one exchange among all ranks (α)."""

    def compute_s(self, flops: float) -> float:
        """Time of that many operations on one rank."""
        return flops / self.flops_per_s

    def exchange_s(self, payload_bytes: float) -> float:
        """Time of one exchange in which the busiest rank sends `payload_bytes`; nothing to send costs nothing."""
        return self.alpha_s + payload_bytes / self.bytes_per_s if payload_bytes else 0.0


def attention_flops_per_token(channels: int, mixed: int) -> float:
    """QKV and output projections (8C²) plus scores and values over `mixed` tokens (4C·mixed)."""
    return 8.0 * channels * channels + 4.0 * channels * mixed


def feed_flops_per_token(channels: int, expansion: int = 4) -> float:
    """Two linear layers of a feed-forward block: 4·expansion·C²."""
    return 4.0 * expansion * channels * channels


def pair_flops_per_token(channels: int, space: int, time: int) -> float:
    """A spatial block and a temporal block, both with attention and feed-forward: 48C² + 4C(S+T)."""
    attention = attention_flops_per_token(channels, space) + attention_flops_per_token(channels, time)
    return attention + 2 * feed_flops_per_token(channels)


def break_even_bytes_per_s(
    channels: int, space: int, time: int, ranks: int, *, flops_per_s: float, bytes_per_number: float = 4.0
) -> float:
    """Link rate above which DSP on `ranks` beats one rank, latency ignored: β > 2CeR / (N·F).

    Two switches a pair send 2Ce(N-1)/N² per token, computing alone costs F(N-1)/N more per token; F as in
    `pair_flops_per_token`. For fp32 this is R / (N(6C + (S+T)/2)).
    """
    if ranks < 2:
        raise InvalidTask("a break-even rate needs at least two ranks")
    work = pair_flops_per_token(channels, space, time)
    return 2.0 * channels * bytes_per_number * flops_per_s / (ranks * work)


def cheapest_size(seconds: Sequence[tuple[int, float]], margin: float = 0.1) -> int:
    """Group size to use, given (size, predicted seconds) pairs: the smallest whose time is within `margin` of the best.

    A smaller group leaves ranks to other requests, so a tie is no reason to take more.
    """
    if not seconds:
        raise InvalidTask("no group size to choose from")
    best = min(time_s for _, time_s in seconds)
    return min(size for size, time_s in seconds if time_s <= best * (1.0 + margin))
