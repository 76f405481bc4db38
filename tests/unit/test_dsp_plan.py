"""The planner and the cost model: what is chosen, and that its books are right."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_node.dsp.cost import (
    Fabric,
    attention_flops_per_token,
    break_even_bytes_per_s,
    cheapest_size,
    feed_flops_per_token,
    pair_flops_per_token,
)
from cloud_node.dsp.plan import ModelStage, Planner, Residual
from cloud_node.dsp.traffic import Traffic, switch_traffic
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask

FABRIC = Fabric(flops_per_s=50e9, bytes_per_s=12.5e6, alpha_s=1e-3)
SHAPE = (1, 16, 256, 256)
WHOLE_BYTES = 16 * 256 * 256 * 4


def pairs(count: int, channels: int = 256, space: int = 256, time: int = 16) -> list[ModelStage]:
    feed = ModelStage("feed", None, feed_flops_per_token(channels))
    spatial = ModelStage("spatial", 2, attention_flops_per_token(channels, space))
    temporal = ModelStage("temporal", 1, attention_flops_per_token(channels, time))
    return [spatial, feed, temporal, feed] * count


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("residual", list(Residual))
def test_a_closed_pair_costs_two_switches_wherever_the_residual_is(n: int, residual: Residual) -> None:
    plan = Planner(FABRIC, dims=(1, 2), residual=residual).plan(pairs(1), SHAPE, n, closed=True)
    assert sum(len(step.switches) for step in plan.steps) == 2
    for rank in range(n):
        assert plan.traffic(rank) == Traffic(2 * WHOLE_BYTES * (n - 1) // n**2, 2 * (n - 1))


def test_an_open_chain_saves_the_last_switch() -> None:
    plan = Planner(FABRIC, dims=(1, 2)).plan(pairs(3), SHAPE, 4)
    assert sum(len(step.switches) for step in plan.steps) == 5
    assert plan.start.dim == 1


def test_a_lossy_wire_keeps_the_residual_at_home() -> None:
    exact = Planner(FABRIC, dims=(1, 2)).plan(pairs(1), SHAPE, 2, closed=True)
    lossy = Planner(FABRIC, Wire.INT8, dims=(1, 2)).plan(pairs(1), SHAPE, 2, closed=True)
    assert any(step.before != step.after for step in exact.steps)
    assert all(step.before == step.after for step in lossy.steps)


def test_a_link_below_break_even_leaves_the_others_idle() -> None:
    """Cutting a batch of one gives everything to rank 0: on a link this slow that is the fastest plan."""
    slow, fast = (Planner(Fabric(50e9, rate)).plan(pairs(1), SHAPE, 2, closed=True) for rate in (1e6, 1e9))
    assert slow.start.splits == (1, 0)
    assert fast.start.dim != 0


def test_a_batch_as_large_as_the_group_needs_no_switch() -> None:
    plan = Planner(FABRIC).plan(pairs(2), (4, 16, 256, 256), 4)
    assert plan.start.dim == 0
    assert plan.traffic(0) == Traffic()


def test_one_frame_cuts_the_batch_for_space_and_space_for_nothing() -> None:
    """T = 1: the temporal stage mixes a single token, so only batch and space are worth cutting."""
    plan = Planner(FABRIC).plan(pairs(1), (2, 1, 256, 256), 2, closed=True)
    assert {step.compute.dim for step in plan.steps} == {0}
    forced = Planner(FABRIC, dims=(0, 2)).plan([*pairs(1), ModelStage("batch", 0)], (2, 1, 256, 256), 2)
    assert (0, 2) in {(a.dim, b.dim) for step in forced.steps for a, b in step.switches}


def test_gathering_after_the_projection_is_counted_with_its_width() -> None:
    plan = Planner(FABRIC, dims=(1, 2)).plan(pairs(1), SHAPE, 2, gather_channels=8)
    assert plan.gather_traffic(0) == Traffic(16 * 256 * 8 * 4 // 2, 1)
    assert plan.traffic(0).payload_bytes == sum(t.payload_bytes for t in plan.step_traffic(0)) + 16 * 256 * 8 * 4 // 2


def test_stages_with_no_possible_layout_are_refused() -> None:
    with pytest.raises(InvalidTask, match="no layout"):
        Planner(FABRIC, dims=(1,)).plan(pairs(1), SHAPE, 2)
    with pytest.raises(InvalidTask, match="at least one stage"):
        Planner(FABRIC).plan([], SHAPE, 2)


stage_lists = st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=5)


@settings(max_examples=60)
@given(stage_lists, st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.just(4)), st.integers(2, 3))
def test_no_hand_made_plan_is_faster(wholes: list[int | None], shape: tuple[int, ...], n: int) -> None:
    """Against brute force over every sequence of compute layouts with a residual that moves."""
    stages = [ModelStage(f"s{i}", whole, 100.0) for i, whole in enumerate(wholes)]
    best = Planner(FABRIC).plan(stages, shape, n)
    for dims in itertools.product((0, 1, 2), repeat=len(stages)):
        if any(dim == stage.whole for dim, stage in zip(dims, stages, strict=True)):
            continue
        layouts = [best.start.whole().cut(dim, n) for dim in dims]
        seconds = sum(FABRIC.compute_s(100.0 * max(lay.tokens(rank) for rank in range(n))) for lay in layouts)
        for source, target in itertools.pairwise(layouts):
            seconds += FABRIC.exchange_s(max(switch_traffic(source, target, rank).payload_bytes for rank in range(n)))
        assert best.seconds <= seconds + 1e-9


@settings(max_examples=60)
@given(stage_lists, st.integers(1, 4), st.booleans())
def test_every_stage_gets_the_dimension_it_mixes(wholes: list[int | None], n: int, closed: bool) -> None:
    plan = Planner(FABRIC).plan([ModelStage("s", whole) for whole in wholes], (3, 5, 7, 4), n, closed=closed)
    assert all(step.compute.dim != step.stage.whole for step in plan.steps)
    assert all(a.after == b.before for a, b in itertools.pairwise(plan.steps))
    assert not closed or plan.end == plan.start


def test_pair_flops_follow_the_formula() -> None:
    assert pair_flops_per_token(256, 256, 16) == 48 * 256**2 + 4 * 256 * 272


def test_break_even_is_where_the_planner_stops_gaining() -> None:
    """At the break-even rate two ranks take as long as one; 20 % to either side decides."""
    rate = break_even_bytes_per_s(256, 256, 16, 2, flops_per_s=50e9)
    assert rate == pytest.approx(50e9 / (2 * (6 * 256 + 272 / 2)))
    assert 14e6 < rate < 16e6
    for factor, wins in ((0.8, False), (1.2, True)):
        fabric = Fabric(50e9, rate * factor)
        alone = Planner(fabric).plan(pairs(1), SHAPE, 1, closed=True).seconds
        together = Planner(fabric, dims=(1, 2)).plan(pairs(1), SHAPE, 2, closed=True).seconds
        assert (together < alone) is wins
    with pytest.raises(InvalidTask):
        break_even_bytes_per_s(256, 256, 16, 1, flops_per_s=50e9)


def test_the_smallest_group_within_the_margin_is_taken() -> None:
    assert cheapest_size([(1, 1.0), (2, 0.95), (4, 0.94)]) == 1
    assert cheapest_size([(1, 1.0), (2, 0.6), (4, 0.58)]) == 2
    with pytest.raises(InvalidTask):
        cheapest_size([])
