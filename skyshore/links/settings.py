"""Settings of a link: its two directions, and the links that share its rate."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outage:
    """Seconds of experiment time in which nothing gets through. Bytes wait; none is dropped."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a link. Times are experiment times: they start with the workload, not with the process."""

    rate_bytes_per_s: float = math.inf
    """Of a constant link; ignored where a trace is given."""
    delay_s: float = 0.0
    """One-way propagation delay."""
    jitter_s: float = 0.0
    """Standard deviation of the delay; bytes keep their order, so jitter can only add delay to later bytes."""
    loss: float = 0.0
    """Share of 1500-byte packets lost once. A stream sees loss as a wait of one round trip, and so do we."""
    outages: tuple[Outage, ...] = ()
    trace: str = ""
    """Name of a capacity trace; empty for a constant rate."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """A path between the gateway and one node."""

    up: Direction = field(default_factory=Direction)
    """Gateway to node: prompts and frames."""
    down: Direction = field(default_factory=Direction)
    """Node to gateway: tokens and boxes."""
    shared: str = ""
    """Links with the same word here share the rate of both directions and contend for it; empty shares with nobody."""
    joules_per_byte: float = 0.0
    """Modelled (never measured) energy of one byte on this link, in either direction."""


def problems(direction: Direction) -> list[str]:
    """What is wrong with one direction, in words; empty when it is fine."""
    said: list[str] = []
    if not direction.rate_bytes_per_s > 0:
        said.append(f"rate_bytes_per_s must be positive, not {direction.rate_bytes_per_s}; use an outage for 'nothing'")
    for name in ("delay_s", "jitter_s"):
        value = getattr(direction, name)
        if not (value >= 0 and math.isfinite(value)):
            said.append(f"{name} must be at least 0, not {value}")
    if not 0 <= direction.loss < 1:
        said.append(f"loss must be in 0..1 (1 excluded), not {direction.loss}; use an outage for 'nothing'")
    said += [
        f"an outage from {outage.start_s:g} s to {outage.end_s:g} s is no interval"
        for outage in direction.outages
        if not 0 <= outage.start_s < outage.end_s
    ]
    ordered = sorted(direction.outages, key=lambda outage: outage.start_s)
    said += [
        f"the outages at {a.start_s:g} s and {b.start_s:g} s overlap"
        for a, b in itertools.pairwise(ordered)
        if b.start_s < a.end_s
    ]
    return said
