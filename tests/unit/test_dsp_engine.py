"""The planned model equals the unplanned one, bit for bit."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cloud_node.classify.model import (  # noqa: E402
    SPACE,
    TIME,
    Block,
    ModelConfig,
    SpaceTimeTransformer,
    branches,
    part_start,
    pool,
    stages,
)
from cloud_node.dsp.cost import Fabric  # noqa: E402
from cloud_node.dsp.engine import PlanRunner  # noqa: E402
from cloud_node.dsp.plan import Planner, Residual  # noqa: E402
from cloud_node.dsp.switch import gather, split  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.threads import run_ranks  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport  # noqa: E402
from cloud_node.dsp.wire import Wire  # noqa: E402
from skyshore.domain.errors import InvalidTask  # noqa: E402

FABRIC = Fabric(flops_per_s=50e9, bytes_per_s=1e9, alpha_s=1e-4)
CHANNELS, HEADS = 32, 4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(CHANNELS, HEADS, axis).eval() for axis in (SPACE, TIME, SPACE, TIME)]


def alone(blocks: list[Block], whole: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        for block in blocks:
            whole = block(whole)
    return whole


def sharded(
    blocks: list[Block], whole: torch.Tensor, n: int, planner: Planner, *, chunks: int = 1, closed: bool = False
) -> list[torch.Tensor]:
    plan = planner.plan(stages(blocks, tuple(whole.shape)), tuple(whole.shape), n, closed=closed)

    def program(bare: Transport) -> torch.Tensor:
        transport = CountingTransport(bare)
        with torch.inference_mode():
            x = split(whole, plan.start.dim or 0, transport)
            y = PlanRunner(plan, transport, chunks)(branches(blocks), x)
        formula = plan.traffic(transport.rank)
        assert transport.sent.payload_bytes == formula.payload_bytes
        assert chunks > 1 or transport.sent.messages == formula.messages
        return gather(y, transport)

    return run_ranks(n, program)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9)),
    st.integers(1, 4),
    st.tuples(st.sampled_from([None, *Residual]), st.integers(1, 3), st.booleans()),
)
def test_any_shape_and_group_gives_the_bits_of_one_process(
    blocks: list[Block], sizes: tuple[int, int, int], n: int, how: tuple[Residual | None, int, bool]
) -> None:
    residual, chunks, closed = how
    whole = torch.randn(*sizes, CHANNELS, generator=torch.Generator().manual_seed(sum(sizes)))
    planner = Planner(FABRIC, dims=(1, 2), residual=residual)
    expected = alone(blocks, whole)
    for answer in sharded(blocks, whole, n, planner, chunks=chunks, closed=closed):
        assert torch.equal(answer, expected)


@pytest.mark.parametrize(("wire", "limit"), [(Wire.FP16, 1e-3), (Wire.BF16, 8e-3), (Wire.INT8, 2e-2)])
def test_lossy_wires_err_within_their_bound_and_less_when_the_residual_stays(
    blocks: list[Block], wire: Wire, limit: float
) -> None:
    whole = torch.randn(1, 8, 16, CHANNELS, generator=torch.Generator().manual_seed(5))
    expected = alone(blocks, whole)
    errors = {}
    for residual in Residual:
        planner = Planner(FABRIC, wire, dims=(1, 2), residual=residual)
        answer = sharded(blocks, whole, 2, planner, closed=True)[0]
        errors[residual] = float((answer - expected).norm() / expected.norm())
    print(f"{wire}: relative error moves {errors[Residual.MOVES]:.1e}, stays {errors[Residual.STAYS]:.1e}")
    assert 0 < errors[Residual.STAYS] < errors[Residual.MOVES] < limit


def test_a_whole_model_stays_sharded_from_patches_to_projection() -> None:
    torch.manual_seed(1)
    config = ModelConfig(frames=5, height=24, width=24, channels=32, labels=3)
    model = SpaceTimeTransformer(config).eval()
    frames = torch.randint(0, 256, (2, 5, 24, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(frames)
    shape = config.token_shape(2)
    listed = model.spatial_temporal_blocks()
    plan = Planner(FABRIC, dims=(1, 2)).plan(stages(listed, shape), shape, 3, gather_channels=config.labels)

    def program(bare: Transport) -> torch.Tensor:
        transport = CountingTransport(bare)
        with torch.inference_mode():
            raw = split(model.patches(frames), plan.start.dim or 0, transport)
            x = raw.like(model.embed(raw.local, *part_start(raw.layout, transport.rank)))
            y = PlanRunner(plan, transport)(branches(listed), x)
            logits = pool(gather(y.like(model.project(y.local)), transport))
        assert transport.sent == plan.traffic(transport.rank)
        return logits

    assert all(torch.equal(answer, expected) for answer in run_ranks(3, program))


def test_a_sampler_stays_sharded_between_steps_and_gathers_once(blocks: list[Block]) -> None:
    """x ← x - 0.1 · model(x), three times: two switches a pair and step, then one gather of the result."""
    shape = (1, 6, 10, CHANNELS)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    plan = Planner(FABRIC, dims=(1, 2)).plan(stages(blocks, shape), shape, 2, closed=True)
    expected = noise
    for _ in range(3):
        expected = expected - 0.1 * alone(blocks, expected)

    def program(bare: Transport) -> torch.Tensor:
        transport = CountingTransport(bare)
        x = split(noise, plan.start.dim or 0, transport)
        with torch.inference_mode():
            for _ in range(3):
                x = x.like(x.local - 0.1 * PlanRunner(plan, transport)(branches(blocks), x).local)
        assert transport.exchanges == 3 * 4
        assert transport.sent.payload_bytes == 3 * plan.traffic(transport.rank).payload_bytes
        return gather(x, transport)

    assert all(torch.equal(answer, expected) for answer in run_ranks(2, program))


def test_a_plan_for_another_group_is_refused(blocks: list[Block]) -> None:
    shape = (1, 4, 4, CHANNELS)
    plan = Planner(FABRIC, dims=(1, 2)).plan(stages(blocks, shape), shape, 3)

    def program(transport: Transport) -> None:
        with pytest.raises(InvalidTask, match="the plan is for 3 ranks"):
            PlanRunner(plan, transport)(branches(blocks), split(torch.zeros(shape), 1, transport))

    run_ranks(2, program)
