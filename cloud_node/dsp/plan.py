"""The planner: where each stage of a model computes, where switches go, and what they cost. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloud_node.dsp.cost import Fabric
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.traffic import Traffic, gather_traffic, switch_traffic
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask


class Residual(StrEnum):
    """What happens to the residual stream when a stage needs another layout."""

    MOVES = "moves"
    """It switches and stays in the new layout: one switch, until some later stage needs another."""
    STAYS = "stays"
    """Only the branch switches in and out: two switches, but a lossy wire never touches the stream itself."""


@dataclass(frozen=True, slots=True)
class ModelStage:
    """One residual branch, x + f(x), of a model."""

    name: str
    whole: int | None = None
    """Dimension whose tokens it mixes, which must therefore not be cut; None for token-wise work."""
    flops_per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class PlacedStage:
    """A stage in its place: layout of the residual stream before and after, and of the computation."""

    stage: ModelStage
    before: Layout
    compute: Layout
    after: Layout

    @property
    def switches(self) -> tuple[tuple[Layout, Layout], ...]:
        """The switches of this step, in order."""
        hops = ((self.before, self.compute), (self.compute, self.after))
        return tuple((source, target) for source, target in hops if source.dim != target.dim)


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """A whole model, placed. `seconds` is the α–β prediction for one forward, gather included."""

    steps: tuple[PlacedStage, ...]
    ranks: int
    wire: Wire
    itemsize: int
    seconds: float
    gather_channels: int | None
    """Token width after the projection that precedes the gather; None when the result stays sharded."""

    @property
    def start(self) -> Layout:
        """Layout of the input."""
        return self.steps[0].before

    @property
    def end(self) -> Layout:
        """Layout of the residual stream after the last stage."""
        return self.steps[-1].after

    def step_traffic(self, rank: int) -> tuple[Traffic, ...]:
        """Exact payload and messages `rank` sends in each step."""
        return tuple(
            sum((switch_traffic(a, b, rank, self.wire, self.itemsize) for a, b in step.switches), Traffic())
            for step in self.steps
        )

    def gather_traffic(self, rank: int) -> Traffic:
        """Exact payload and messages of the final gather, which is never lossy."""
        if self.gather_channels is None:
            return Traffic()
        return gather_traffic(self.end.with_channels(self.gather_channels), rank, itemsize=self.itemsize)

    def traffic(self, rank: int) -> Traffic:
        """All that `rank` sends in one forward."""
        return sum(self.step_traffic(rank), self.gather_traffic(rank))


@dataclass(frozen=True, slots=True)
class Planner:
    """Finds the fastest plan on a given fabric by dynamic programming over (stage, cut dimension)."""

    fabric: Fabric
    wire: Wire = Wire.EXACT
    itemsize: int = 4
    dims: tuple[int, ...] | None = None
    """Dimensions that may be cut; None means all but the channels, batch included."""
    residual: Residual | None = None
    """Force one placement; None chooses, and prefers STAYS on a lossy wire where both cost the same."""

    def plan(
        self,
        stages: Sequence[ModelStage],
        shape: tuple[int, ...],
        ranks: int,
        *,
        closed: bool = False,
        gather_channels: int | None = None,
    ) -> SwitchPlan:
        """Place `stages` for an activation of `shape` on `ranks`.

        `closed` asks that the end layout equals the start layout, as a loop that stays sharded between steps needs.

        Raises:
            InvalidTask: no stages, or some stage can be computed in no allowed layout.
        """
        dims = self.dims if self.dims is not None else tuple(range(len(shape) - 1))
        if not stages or not dims:
            raise InvalidTask("a plan needs at least one stage and one dimension to cut")
        layouts = {dim: Layout(shape).cut(dim, ranks) for dim in dims}
        routes = [_Route(first, gather_channels, self).extend(stages, layouts, closed) for first in layouts.values()]
        options = [option for route in routes for option in route]
        if not options:
            raise InvalidTask(f"no layout over dimensions {dims} leaves every stage the dimension it needs whole")
        cost, steps = min(options, key=lambda option: option[0])
        return SwitchPlan(steps, ranks, self.wire, self.itemsize, cost[0] * 1e-12, gather_channels)


_Cost = tuple[int, int]
"""Picoseconds, then a tie-breaker. Integers, so that equal costs compare equal whatever the order of addition."""


@dataclass(frozen=True, slots=True)
class _Route:
    """The search from one start layout."""

    first: Layout
    gather_channels: int | None
    planner: Planner

    def extend(
        self, stages: Sequence[ModelStage], layouts: dict[int, Layout], closed: bool
    ) -> list[tuple[_Cost, tuple[PlacedStage, ...]]]:
        best: dict[int | None, tuple[_Cost, tuple[PlacedStage, ...]]] = {self.first.dim: ((0, 0), ())}
        for stage in stages:
            reached: dict[int | None, tuple[_Cost, tuple[PlacedStage, ...]]] = {}
            for cost, steps in best.values():
                before = steps[-1].after if steps else self.first
                for step in self._choices(stage, before, layouts):
                    extra = self._step_cost(step)
                    total = (cost[0] + extra[0], cost[1] + extra[1])
                    if step.after.dim not in reached or total < reached[step.after.dim][0]:
                        reached[step.after.dim] = (total, (*steps, step))
            best = reached
        ends = [option for dim, option in best.items() if not closed or dim == self.first.dim]
        return [((cost[0] + self._gather_cost(steps[-1].after), cost[1]), steps) for cost, steps in ends]

    def _choices(self, stage: ModelStage, before: Layout, layouts: dict[int, Layout]) -> Iterator[PlacedStage]:
        for compute in layouts.values():
            if compute.dim == stage.whole:
                continue
            if compute.dim == before.dim:
                yield PlacedStage(stage, before, before, before)
                continue
            if self.planner.residual is not Residual.STAYS:
                yield PlacedStage(stage, before, compute, compute)
            if self.planner.residual is not Residual.MOVES:
                yield PlacedStage(stage, before, compute, before)

    def _step_cost(self, step: PlacedStage) -> _Cost:
        fabric, planner = self.planner.fabric, self.planner
        ranks = range(step.compute.ranks)
        seconds = fabric.compute_s(step.stage.flops_per_token * max(step.compute.tokens(rank) for rank in ranks))
        for source, target in step.switches:
            traffic = (switch_traffic(source, target, rank, planner.wire, planner.itemsize) for rank in ranks)
            seconds += fabric.exchange_s(max(sent.payload_bytes for sent in traffic))
        moved = step.after.dim != step.before.dim
        stayed = bool(step.switches) and not moved
        return round(seconds * 1e12), int(stayed if planner.wire is Wire.EXACT else moved)

    def _gather_cost(self, end: Layout) -> int:
        if self.gather_channels is None:
            return 0
        narrow = end.with_channels(self.gather_channels)
        sent = max(
            gather_traffic(narrow, rank, itemsize=self.planner.itemsize).payload_bytes for rank in range(end.ranks)
        )
        return round(self.planner.fabric.exchange_s(sent) * 1e12)
