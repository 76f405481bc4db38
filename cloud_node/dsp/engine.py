"""Runs a planned model on one rank: torch branches, with switches between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cloud_node.dsp.layout import Layout
from cloud_node.dsp.plan import PlacedStage, SwitchPlan
from cloud_node.dsp.switch import Sharded, SwitchInFlight, switch
from cloud_node.dsp.transports.port import Transport
from skyshore.domain.errors import InvalidTask

Branch = Callable[[Tensor], Tensor]
"""f of a residual step x + f(x); sees the local part, in a layout that leaves it the dimension it mixes."""

_Placed = list[tuple[PlacedStage, Branch]]


@dataclass(frozen=True, slots=True)
class PlanRunner:
    """A plan on one rank of a group.

    With `chunks` > 1 the work before each switch is done in that many pieces, and each travels while the next is
    computed. The answer is the same, bit for bit.
    """

    plan: SwitchPlan
    transport: Transport
    chunks: int = 1

    def __call__(self, branches: Sequence[Branch], x: Sharded) -> Sharded:
        """One forward through `branches`, placed as the plan says.

        Raises:
            InvalidTask: plan, branches, input and group do not belong together.
            NodeUnavailable, DeadlineExceeded: a peer failed.
        """
        plan = self.plan
        if len(branches) != len(plan.steps) or self.transport.size != plan.ranks or x.layout != plan.start:
            raise InvalidTask(f"the plan is for {plan.ranks} ranks, {len(plan.steps)} branches and input {plan.start}")
        rest = list(zip(plan.steps, branches, strict=True))
        while rest:
            step, branch = rest[0]
            if step.switches and step.after == step.before:
                x = self._excursion(x, step, branch)
                rest = rest[1:]
                continue
            x = switch(x, _dim(step.compute), self.transport, plan.wire)
            leg = _leg(rest, x.layout)
            rest = rest[len(leg) :]
            x = self._run_leg(x, leg, rest[0][0].after if rest else x.layout)
        return x

    def _run_leg(self, x: Sharded, leg: _Placed, then: Layout) -> Sharded:
        """Steps of one layout, then the overlapped switch to where the residual stream goes next, if it moves."""

        def work(piece: Tensor) -> Tensor:
            for _, branch in leg if piece.numel() else ():
                piece = piece + branch(piece)
            return piece

        return x.like(work(x.local)) if then == x.layout else self._feed(x, work, _dim(then))

    def _excursion(self, x: Sharded, step: PlacedStage, branch: Branch) -> Sharded:
        """A step whose residual stays: switch in, compute the branch, switch its output back, add."""
        inside = switch(x, _dim(step.compute), self.transport, self.plan.wire)
        back = self._feed(inside, lambda piece: branch(piece) if piece.numel() else piece, _dim(x.layout))
        return x.like(x.local + back.local)

    def _feed(self, x: Sharded, work: Branch, to_dim: int) -> Sharded:
        """Compute in pieces along the cut dimension, and switch each piece while the next is computed."""
        flight = SwitchInFlight(x.layout, to_dim, self.transport, self.plan.wire, like=x.local, pieces=self.chunks)
        start = 0
        for size in flight.piece_sizes(self.transport.rank):
            flight.send(work(x.local.narrow(_dim(x.layout), start, size)))
            start += size
        return flight.finish()


def _leg(rest: _Placed, layout: Layout) -> _Placed:
    """The longest run of steps that enter, compute and leave in `layout`; the first may have just arrived there."""
    count = next((i for i, (step, _) in enumerate(rest) if not step.compute == layout == step.after), len(rest))
    return rest[:count]


def _dim(layout: Layout) -> int:
    if layout.dim is None:
        raise InvalidTask("a whole tensor needs no switch")
    return layout.dim
