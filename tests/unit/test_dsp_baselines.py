"""Every rival computes the same answer as one process and sends exactly what its formula says."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from cloud_node.classify.model import SPACE, TIME, Block  # noqa: E402
from cloud_node.dsp.baselines.methods import METHODS, DynamicSequence  # noqa: E402
from cloud_node.dsp.switch import gather, split  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.threads import run_ranks  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport  # noqa: E402
from cloud_node.dsp.wire import Wire  # noqa: E402
from skyshore.domain.errors import InvalidTask  # noqa: E402

CHANNELS, HEADS = 32, 4


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(CHANNELS, HEADS, axis).eval() for axis in (SPACE, TIME, SPACE, TIME)]


def forward(name: str, blocks: list[Block], whole: torch.Tensor, n: int) -> tuple[torch.Tensor, list[int]]:
    def program(bare: Transport) -> tuple[torch.Tensor, int]:
        transport = CountingTransport(bare)
        with torch.inference_mode():
            run = METHODS[name].prepare(blocks, tuple(whole.shape), transport)
            y = run(split(whole.view(run.start.shape), run.start.dim or 0, transport))
            sent = transport.sent.payload_bytes
            return gather(y, transport).view(whole.shape), sent

    answers = run_ranks(n, program)
    return answers[0][0], [sent for _, sent in answers]


def alone(blocks: list[Block], whole: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        for block in blocks:
            whole = block(whole)
    return whole


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_even_sizes_give_the_same_answer_for_the_promised_bytes(name: str, n: int, blocks: list[Block]) -> None:
    whole = torch.randn(2, 8, 16, CHANNELS, generator=torch.Generator().manual_seed(1))
    answer, sent = forward(name, blocks, whole, n)
    assert (answer - alone(blocks, whole)).abs().max() < 2e-5
    assert sent == [int(2 * METHODS[name].per_pair(n) * whole.nbytes)] * n


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("n", "sizes"), [(2, (2, 5, 7)), (3, (1, 7, 5)), (4, (1, 3, 9)), (4, (1, 2, 3))])
def test_uneven_sizes_give_the_same_answer(name: str, n: int, sizes: tuple[int, int, int], blocks: list[Block]) -> None:
    whole = torch.randn(*sizes, CHANNELS, generator=torch.Generator().manual_seed(2))
    if METHODS[name].needs_heads and HEADS % n:
        with pytest.raises(InvalidTask, match="heads cannot be shared"):
            forward(name, blocks, whole, n)
        return
    answer, _ = forward(name, blocks, whole, n)
    assert (answer - alone(blocks, whole)).abs().max() < 2e-5


@pytest.mark.parametrize("n", [2, 4])
def test_dsp_sends_at_most_half_of_the_best_rival(n: int) -> None:
    rivals = [method.per_pair(n) for name, method in METHODS.items() if name != "dsp"]
    assert METHODS["dsp"].per_pair(n) <= min(rivals) / 2


def test_a_lossy_wire_leaves_the_residual_stream_alone(blocks: list[Block]) -> None:
    def program(transport: Transport) -> bool:
        plan = DynamicSequence(blocks, (1, 8, 16, CHANNELS), transport, wire=Wire.FP16).plan
        return all(step.before == step.after for step in plan.steps)

    assert all(run_ranks(2, program))
