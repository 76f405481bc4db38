"""All methods by name, DSP among them, with the bytes each must send. One table for tests, bench and docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from cloud_node.classify.model import SPACE, TIME, Block, branches, stages
from cloud_node.dsp.baselines.allgather import AllGatherSwitch
from cloud_node.dsp.baselines.megatron import MegatronParallel
from cloud_node.dsp.baselines.ring import RingOneDim
from cloud_node.dsp.baselines.ulysses import UlyssesFlattened, UlyssesOneDim
from cloud_node.dsp.cost import Fabric
from cloud_node.dsp.engine import PlanRunner
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.plan import Planner, Residual
from cloud_node.dsp.switch import Sharded
from cloud_node.dsp.transports.port import Transport
from cloud_node.dsp.wire import Wire

_ANY_FABRIC = Fabric(1e12, 1e9)
"""The layouts of a closed pair do not depend on it."""


class Forward(Protocol):
    """A method, ready to run on one rank."""

    @property
    def start(self) -> Layout:
        """How the input must be cut."""
        ...

    def __call__(self, x: Sharded) -> Sharded:
        """One forward; the output is cut like the input."""
        ...


class DynamicSequence:
    """DSP itself, closed: ends in the layout it starts from."""

    def __init__(
        self,
        blocks: list[Block],
        shape: tuple[int, ...],
        transport: Transport,
        *,
        wire: Wire = Wire.EXACT,
        chunks: int = 1,
    ) -> None:
        # A lossy wire must not touch the residual stream; an exact one moves it, as the paper draws it.
        residual = Residual.MOVES if wire is Wire.EXACT else Residual.STAYS
        planner = Planner(_ANY_FABRIC, wire, dims=(TIME, SPACE), residual=residual)
        self.plan = planner.plan(stages(blocks, shape), shape, transport.size, closed=True)
        self._run, self._branches = PlanRunner(self.plan, transport, chunks), branches(blocks)
        self.start = self.plan.start

    def __call__(self, x: Sharded) -> Sharded:
        """One forward."""
        return self._run(self._branches, x)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to shard block pairs. `per_pair` is the payload a rank sends for one pair, in units of the activation M."""

    prepare: Callable[[list[Block], tuple[int, ...], Transport], Forward]
    per_pair: Callable[[int], Fraction]
    needs_heads: bool = False
    """Heads must divide by the number of ranks."""


def _share(n: int) -> Fraction:
    """(N-1)/N."""
    return Fraction(n - 1, n)


METHODS: dict[str, Method] = {
    "dsp": Method(DynamicSequence, lambda n: 2 * _share(n) / n),
    "ulysses": Method(lambda b, s, t: UlyssesOneDim(b, s, t, SPACE), lambda n: 4 * _share(n) / n, needs_heads=True),
    "ulysses-flattened": Method(UlyssesFlattened, lambda n: 8 * _share(n) / n, needs_heads=True),
    "ring": Method(lambda b, s, t: RingOneDim(b, s, t, SPACE), lambda n: 2 * _share(n)),
    "megatron": Method(lambda b, s, t: MegatronParallel(b, s, t, TIME), lambda n: 8 * _share(n), needs_heads=True),
    "all-gather": Method(AllGatherSwitch, lambda n: 2 * _share(n)),
}
"""Payload formulas hold when N divides T, S and the heads."""
