"""DSP on a GPU: ranks as threads share it, so one is enough; NCCL needs two. Run with `pytest -m gpu tests/gpu`."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

from cloud_node.classify.export import export_stages  # noqa: E402
from cloud_node.classify.model import SPACE, TIME, Block  # noqa: E402
from cloud_node.dsp.baselines.methods import METHODS, DynamicSequence  # noqa: E402
from cloud_node.dsp.onnx_engine import Device, OnnxForward, OnnxStages  # noqa: E402
from cloud_node.dsp.switch import gather, split  # noqa: E402
from cloud_node.dsp.transports.nccl import NcclTransport  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.threads import run_ranks  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport  # noqa: E402
from cloud_node.dsp.wire import Wire  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
SHAPE = (1, 8, 32, 64)


def cuda_blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(64, 4, axis).eval().cuda() for axis in (SPACE, TIME)]


def alone(blocks: list[Block], whole: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        for block in blocks:
            whole = block(whole)
    return whole


def answer(name: str, transport: Transport, whole: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        forward = METHODS[name].prepare(cuda_blocks(), SHAPE, transport)
        y = forward(split(whole.view(forward.start.shape), forward.start.dim or 0, transport))
        return gather(y, transport).view(SHAPE)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [2, 4])
def test_every_method_agrees_with_one_rank(name: str, n: int) -> None:
    whole = torch.randn(SHAPE, device="cuda")

    def program(bare: Transport) -> torch.Tensor:
        transport = CountingTransport(bare)
        y = answer(name, transport, whole)
        gathered = whole.nbytes * (n - 1) // n
        assert transport.sent.payload_bytes - gathered == int(METHODS[name].per_pair(n) * whole.nbytes)
        return y

    for y in run_ranks(n, program):
        assert (y - alone(cuda_blocks(), whole)).abs().max() < 1e-4


@pytest.mark.parametrize(("wire", "limit"), [(Wire.FP16, 1e-3), (Wire.BF16, 1e-2), (Wire.INT8, 1e-2)])
def test_lossy_wires_stay_in_bounds(wire: Wire, limit: float) -> None:
    whole = torch.randn(SHAPE, device="cuda")
    blocks = cuda_blocks()

    def program(transport: Transport) -> torch.Tensor:
        with torch.inference_mode():
            forward = DynamicSequence(blocks, SHAPE, transport, wire=wire)
            return gather(forward(split(whole, forward.start.dim or 0, transport)), transport)

    expected = alone(blocks, whole)
    for y in run_ranks(2, program):
        assert 0 < (y - expected).norm() / expected.norm() < limit


def test_onnx_stages_bind_device_buffers(tmp_path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if Device.CUDA.provider not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider (install onnxruntime-gpu)")
    blocks = [block.cpu() for block in cuda_blocks()]
    files = export_stages(blocks, tmp_path)
    whole = torch.randn(SHAPE)
    expected = alone(blocks, whole)

    def program(transport: Transport) -> torch.Tensor:
        forward = OnnxForward(OnnxStages(files, 2, device=Device.CUDA), SHAPE, transport)
        return gather(forward(split(whole.cuda(), TIME, transport)), transport)

    for y in run_ranks(2, program):
        assert (y.cpu() - expected).abs().max() < 1e-4


def nccl_rank(rank: int, port: int) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    whole = torch.randn(SHAPE, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    for name in METHODS:
        y = answer(name, NcclTransport(timeout_s=30), whole)
        assert (y - alone(cuda_blocks(), whole)).abs().max() < 1e-4
    dist.destroy_process_group()


@pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="NCCL refuses two ranks on one GPU; this host has fewer than 2"
)
def test_nccl_between_two_gpus(unused_tcp_port: int) -> None:
    mp.spawn(nccl_rank, args=(unused_tcp_port,), nprocs=2)
