"""Split, switch and gather on real tensors, ranks as threads."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cloud_node.dsp.cost import Fabric  # noqa: E402
from cloud_node.dsp.layout import Layout  # noqa: E402
from cloud_node.dsp.switch import Sharded, SwitchInFlight, gather, split, switch  # noqa: E402
from cloud_node.dsp.traffic import Traffic, gather_traffic, switch_traffic  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.threads import run_ranks  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport, ShapedTransport  # noqa: E402
from cloud_node.dsp.wire import Wire  # noqa: E402
from skyshore.domain.errors import DeadlineExceeded, InvalidTask  # noqa: E402

shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 5))
two_dims = st.permutations([0, 1, 2]).map(lambda order: order[:2])


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 4), two_dims, st.integers(1, 3))
def test_a_switch_moves_every_token_to_its_place_and_sends_what_the_formula_says(
    shape: tuple[int, ...], n: int, dims: list[int], pieces: int
) -> None:
    whole, (source, target) = numbered(shape), dims

    def program(bare: Transport) -> None:
        transport = CountingTransport(bare)
        x = split(whole, source, transport)
        flight = SwitchInFlight(x.layout, target, transport, Wire.EXACT, like=x.local, pieces=pieces)
        for piece in torch.split(x.local, list(flight.piece_sizes(transport.rank)), source):
            flight.send(piece)
        y = flight.finish()
        assert torch.equal(y.local, whole.narrow(target, *y.layout.span(transport.rank)))
        formula = switch_traffic(x.layout, y.layout, transport.rank)
        assert transport.sent.payload_bytes == formula.payload_bytes
        assert pieces > 1 or transport.sent == formula
        before = transport.sent.payload_bytes
        assert torch.equal(gather(y, transport), whole)
        assert transport.sent.payload_bytes - before == gather_traffic(y.layout, transport.rank).payload_bytes

    run_ranks(n, program)


@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from([Wire.FP16, Wire.BF16, Wire.INT8]), st.integers(0, 2**31))
def test_lossy_wires_stay_within_half_a_step_and_do_not_depend_on_the_group(
    shape: tuple[int, ...], wire: Wire, seed: int
) -> None:
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3.0
    answers = []
    for n in (2, 3):

        def program(bare: Transport) -> torch.Tensor:
            transport = CountingTransport(bare)
            x = split(whole, 1, transport)
            y = switch(x, 2, transport, wire)
            assert transport.sent == switch_traffic(x.layout, y.layout, transport.rank, wire)
            return gather(y, transport)

        answers += run_ranks(n, program)
    assert all(torch.equal(answers[0], other) for other in answers)
    steps = {Wire.FP16: whole.abs() * 2.0**-11, Wire.BF16: whole.abs() * 2.0**-8}
    int8_step = whole.abs().amax(-1, keepdim=True) / 127.0 * 0.5001
    bound = (steps[wire] if wire in steps else int8_step.expand_as(whole)) + 1e-6
    assert bool(((answers[0] - whole).abs() <= bound).all())


def test_an_all_zero_token_survives_int8() -> None:
    whole = torch.zeros(1, 2, 2, 4)
    answers = run_ranks(2, lambda t: gather(switch(split(whole, 1, t), 2, t, Wire.INT8), t))
    assert torch.equal(answers[0], whole)


def test_switching_to_the_same_dimension_costs_nothing() -> None:
    def program(bare: Transport) -> Traffic:
        transport = CountingTransport(bare)
        x = split(numbered((1, 4, 4, 2)), 1, transport)
        assert switch(x, 1, transport) is x
        return transport.sent

    assert run_ranks(2, program) == [Traffic(), Traffic()]


def test_a_part_that_is_not_what_its_layout_says_is_refused() -> None:
    def program(transport: Transport) -> None:
        layout = Layout((1, 4, 4, 2)).cut(1, 2)
        with pytest.raises(InvalidTask, match="layout says"):
            switch(Sharded(torch.zeros(1, 3, 4, 2), layout), 2, transport)
        with pytest.raises(InvalidTask, match="cannot be switched by 2"):
            switch(Sharded(torch.zeros(1, 2, 4, 2), Layout((1, 4, 4, 2)).cut(1, 3)), 2, transport)

    run_ranks(2, program)


def test_a_buffer_in_another_order_is_refused() -> None:
    def program(transport: Transport) -> None:
        crossed = torch.zeros(3, 5).t()
        with pytest.raises(InvalidTask, match="contiguous"):
            transport.exchange([crossed, crossed], [crossed, crossed])
        with pytest.raises(InvalidTask, match="slots"):
            transport.exchange([None], [None])

    run_ranks(2, program)


def test_two_shapes_at_once_do_not_meet() -> None:
    """VideoSys kept paddings in one process-wide dict; here two requests interleave in one process."""
    small, large = numbered((1, 3, 5, 2)), numbered((2, 7, 4, 3))

    def program(transport: Transport) -> None:
        a, b = split(small, 1, transport), split(large, 1, transport)
        a2, b2 = switch(a, 2, transport), switch(b, 2, transport)
        assert torch.equal(gather(b2, transport), large)
        assert torch.equal(gather(a2, transport), small)

    run_ranks(3, program)


def test_a_shaped_transport_takes_as_long_as_its_link_and_shares_it() -> None:
    """Two exchanges under way at once share one link: the second arrives a whole payload later."""
    whole = numbered((1, 4, 4, 16))
    payload = 2 * 2 * 16 * 4
    fabric = Fabric(flops_per_s=1.0, bytes_per_s=payload / 0.5, alpha_s=0.25)

    def program(bare: Transport) -> list[float]:
        slept: list[float] = []
        now_s = lambda: 10.0 + sum(slept)  # noqa: E731
        transport = ShapedTransport(bare, fabric, now_s, slept.append)
        x = split(whole, 1, transport)
        flights = [SwitchInFlight(x.layout, 2, transport, Wire.EXACT, like=x.local) for _ in range(2)]
        for flight in flights:
            flight.send(x.local)
        for flight in flights:
            y = flight.finish()
        assert torch.equal(y.local, whole.narrow(2, *y.layout.span(transport.rank)))
        return slept

    for slept in run_ranks(2, program):
        assert slept == pytest.approx([0.75, 0.75])


def test_a_silent_peer_ends_in_an_error_not_a_hang() -> None:
    def program(transport: Transport) -> None:
        if transport.rank == 0:
            switch(split(numbered((1, 4, 4, 2)), 1, transport), 2, transport)

    with pytest.raises(DeadlineExceeded, match="sent nothing"):
        run_ranks(2, program, timeout_s=0.1)
