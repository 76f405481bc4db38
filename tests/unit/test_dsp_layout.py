"""Layouts and exact traffic, without any tensor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_node.dsp.layout import Layout, balanced
from cloud_node.dsp.traffic import Traffic, gather_traffic, switch_traffic
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask

sizes = st.integers(0, 40)
ranks = st.integers(1, 6)
shapes = st.tuples(st.integers(1, 3), sizes, sizes, st.integers(1, 9))


@given(sizes, ranks)
def test_balanced_parts_add_up_and_differ_by_at_most_one(size: int, n: int) -> None:
    parts = balanced(size, n)
    assert len(parts) == n
    assert sum(parts) == size
    assert max(parts) - min(parts) <= 1


@given(shapes, ranks, st.integers(0, 2))
def test_parts_tile_the_whole(shape: tuple[int, ...], n: int, dim: int) -> None:
    layout = Layout(shape).cut(dim, n)
    covered = [start + i for start, size in (layout.span(rank) for rank in range(n)) for i in range(size)]
    assert covered == list(range(shape[dim]))
    assert sum(layout.tokens(rank) for rank in range(n)) == shape[0] * shape[1] * shape[2]


@given(shapes, ranks)
def test_a_switch_delivers_every_token_once(shape: tuple[int, ...], n: int) -> None:
    time, space = Layout(shape).cut(1, n), Layout(shape).cut(2, n)
    for peer in range(n):
        assert sum(time.shared_tokens(rank, space, peer) for rank in range(n)) == space.tokens(peer)
    for rank in range(n):
        assert sum(time.shared_tokens(rank, space, peer) for peer in range(n)) == time.tokens(rank)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_switch_and_gather_cost_what_the_paper_says(n: int) -> None:
    shape = (1, 16, 256, 256)
    whole_bytes = 16 * 256 * 256 * 4
    time, space = Layout(shape).cut(1, n), Layout(shape).cut(2, n)
    for rank in range(n):
        assert switch_traffic(time, space, rank) == Traffic(whole_bytes * (n - 1) // n**2, n - 1)
        assert gather_traffic(time, rank) == Traffic(whole_bytes * (n - 1) // n, n - 1)


def test_uneven_switch_sends_less_than_padding_would() -> None:
    time, space = Layout((2, 13, 65, 32)).cut(1, 4), Layout((2, 13, 65, 32)).cut(2, 4)
    sent = sum(switch_traffic(time, space, rank).payload_bytes for rank in range(4))
    padded = 4 * 3 * (2 * 4 * 17 * 32 * 4)
    assert sent < 0.81 * padded


def test_wires_weigh_what_they_say() -> None:
    time, space = Layout((1, 8, 8, 64)).cut(1, 2), Layout((1, 8, 8, 64)).cut(2, 2)
    payload = {wire: switch_traffic(time, space, 0, wire).payload_bytes for wire in Wire}
    assert payload[Wire.EXACT] == 16 * 64 * 4
    assert payload[Wire.FP16] == payload[Wire.BF16] == 16 * 64 * 2
    assert payload[Wire.INT8] == 16 * (64 + 4)


@pytest.mark.parametrize(
    ("shape", "dim", "splits"),
    [
        ((2, 4, 8), 2, (4, 4)),  # channels are never cut
        ((2, 4, 8), -1, (4, 4)),
        ((2, 4, 8), 1, (1, 2)),  # do not add up
        ((2, 4, 8), 1, (-1, 5)),
        ((2, 4, 8), 1, ()),
        ((2, 4, 8), None, (2, 2)),
    ],
)
def test_impossible_layouts_are_refused(shape: tuple[int, ...], dim: int | None, splits: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTask):
        Layout(shape, dim, splits)


def test_no_switch_within_one_layout() -> None:
    time = Layout((1, 4, 4, 8)).cut(1, 2)
    assert switch_traffic(time, time, 0) == Traffic()
    with pytest.raises(InvalidTask, match="two different"):
        time.shared_tokens(0, time, 1)
