"""DSP between real processes over gloo: same bits, exact bytes, and errors instead of hangs."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")
import torch.distributed as dist  # noqa: E402

from cloud_node.classify.model import SPACE, TIME, Block, branches, stages  # noqa: E402
from cloud_node.dsp.cost import Fabric  # noqa: E402
from cloud_node.dsp.engine import PlanRunner  # noqa: E402
from cloud_node.dsp.plan import Planner, Residual  # noqa: E402
from cloud_node.dsp.processes import run_processes, watch_processes  # noqa: E402
from cloud_node.dsp.switch import gather, split, switch  # noqa: E402
from cloud_node.dsp.transports.gloo import GlooTransport  # noqa: E402
from cloud_node.dsp.transports.p2p import P2PTransport  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport, Fault, FaultyTransport  # noqa: E402
from skyshore.domain.errors import DeadlineExceeded, NodeUnavailable  # noqa: E402

FABRIC = Fabric(50e9, 1e9)
SHAPES = ((1, 4, 8, 32), (2, 13, 7, 32), (1, 3, 5, 32))
"""Even, uneven with a batch, and fewer frames than ranks."""
Verdict = tuple[str, bool, bool]


def listed_blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(32, 4, axis).eval() for axis in (SPACE, TIME)]


def check(name: str, bare: Transport, shape: tuple[int, ...], residual: Residual, chunks: int) -> Verdict:
    blocks = listed_blocks()
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    plan = Planner(FABRIC, dims=(1, 2), residual=residual).plan(stages(blocks, shape), shape, bare.size, closed=True)
    transport = CountingTransport(bare)
    with torch.inference_mode():
        expected = blocks[1](blocks[0](whole))
        y = PlanRunner(plan, transport, chunks)(branches(blocks), split(whole, plan.start.dim or 0, transport))
    counted = transport.sent.payload_bytes == plan.traffic(transport.rank).payload_bytes
    return name, torch.equal(gather(y, transport), expected), counted


def battery() -> list[Verdict]:
    """All transports and group sizes in one set of processes, since starting processes is what costs time."""
    verdicts = []
    for n in (1, 2, 3, 4):
        ranks = list(range(n))
        group = dist.new_group(ranks)
        if dist.get_rank() >= n:
            continue
        for shape in SHAPES:
            for residual in Residual:
                for chunks in (1, 2):
                    p2p = P2PTransport(ranks, timeout_s=60)
                    verdicts.append(check(f"p2p n={n} {shape} {residual} k={chunks}", p2p, shape, residual, chunks))
                gloo = GlooTransport(group, timeout_s=60)
                verdicts.append(check(f"gloo n={n} {shape} {residual}", gloo, shape, residual, 1))
    return verdicts


def test_every_carrier_and_group_gives_the_bits_of_one_process_and_the_bytes_of_the_formula() -> None:
    answers = run_processes(4, battery)
    assert [len(answer) for answer in answers] == [72, 54, 36, 18]
    wrong = [verdict for answer in answers for verdict in answer if not (verdict[1] and verdict[2])]
    assert not wrong


def two_groups() -> bool:
    """Ranks 0,1 and 2,3 switch different shapes at the same time over the same default group."""
    mine = (0, 1) if dist.get_rank() < 2 else (2, 3)
    whole = torch.randn((1, 4, 6, 8) if mine == (0, 1) else (2, 5, 3, 4), generator=torch.Generator().manual_seed(1))
    transport = P2PTransport(mine, timeout_s=60)
    for _ in range(20):
        x = split(whole, 1, transport)
        if not torch.equal(gather(switch(x, 2, transport), transport), whole):
            return False
    return True


def test_two_groups_share_a_world_without_meeting() -> None:
    assert run_processes(4, two_groups) == [True] * 4


def out_of_step() -> None:
    """Rank 1 believes it is at another job's messages: that must be an error, not somebody else's numbers."""
    transport = P2PTransport(timeout_s=0.5, first_tag=dist.get_rank() * 1000)
    switch(split(torch.zeros(1, 4, 4, 8), 1, transport), 2, transport)


def test_messages_of_different_jobs_are_never_mixed_up() -> None:
    exits = watch_processes(2, out_of_step, timeout_s=60)
    assert all(isinstance(end.error, DeadlineExceeded | NodeUnavailable) for end in exits)


def switch_under_fault(fault: Fault, carrier: str) -> str:
    """Rank 1 fails at its third exchange; the others must get an error."""
    # A death is noticed at once, a stall by waiting; the wait must outlast what a busy machine takes over a message.
    wait_s = 30.0 if fault is Fault.DIE else 2.0
    transport: Transport = P2PTransport(timeout_s=wait_s) if carrier == "p2p" else GlooTransport(timeout_s=wait_s)
    dist.barrier()
    if transport.rank == 1:
        transport = FaultyTransport(transport, fault, 2)
    x = split(torch.zeros(1, 6, 6, 8), 1, transport)
    for _ in range(4):
        x = switch(switch(x, 2, transport), 1, transport)
    return "finished"


@pytest.mark.parametrize("carrier", ["p2p", "gloo"])
@pytest.mark.parametrize(("fault", "expected"), [(Fault.DIE, NodeUnavailable), (Fault.STALL, DeadlineExceeded)])
def test_a_failing_rank_is_an_error_on_the_others_never_a_hang(
    carrier: str, fault: Fault, expected: type[Exception]
) -> None:
    exits = watch_processes(3, switch_under_fault, fault, carrier, timeout_s=10)
    assert exits[1].answer is None
    for rank in (0, 2):
        # Where two survive, the first to give up closes its sockets, and the other may report that instead.
        assert isinstance(exits[rank].error, expected | NodeUnavailable)
    assert any(isinstance(exits[rank].error, expected) for rank in (0, 2))
