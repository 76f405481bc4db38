"""Exported stages in ONNX Runtime between real switches, on the buffers that travel."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra [cloud])")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra [cloud])")

from cloud_node.classify.export import stage_files  # noqa: E402
from cloud_node.classify.model import SPACE, TIME  # noqa: E402
from cloud_node.classify.weights import SHIPPED, load  # noqa: E402
from cloud_node.dsp.fold import fold  # noqa: E402
from cloud_node.dsp.onnx_engine import Binding, Device, OnnxForward, OnnxStages, StageFile, open_session  # noqa: E402
from cloud_node.dsp.switch import gather, split  # noqa: E402
from cloud_node.dsp.traffic import Traffic, switch_traffic  # noqa: E402
from cloud_node.dsp.transports.port import Transport  # noqa: E402
from cloud_node.dsp.transports.threads import run_ranks  # noqa: E402
from cloud_node.dsp.transports.wrappers import CountingTransport  # noqa: E402
from cloud_node.dsp.wire import Wire  # noqa: E402
from skyshore.domain.errors import InvalidTask  # noqa: E402


@pytest.fixture(scope="module")
def shipped():
    model, _ = load(SHIPPED)
    blocks = model.spatial_temporal_blocks()
    return blocks, stage_files(blocks, SHIPPED.parent)


def alone(blocks, whole):
    with torch.inference_mode():
        for block in blocks:
            whole = block(whole)
    return whole


@pytest.mark.parametrize(("wire", "limit"), [(Wire.EXACT, 1e-5), (Wire.FP16, 3e-3)])
@pytest.mark.parametrize("sizes", [(1, 8, 16), (2, 5, 7), (1, 3, 9)])
def test_stages_agree_with_torch_for_any_shape_and_group_and_send_what_the_formula_says(
    shipped, sizes: tuple[int, int, int], wire: Wire, limit: float
) -> None:
    blocks, files = shipped
    channels = blocks[0].norm1.normalized_shape[0]
    shape = (*sizes, channels)
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = alone(blocks, whole)
    for n in (1, 2, 4):
        stages = OnnxStages(files, n, wire=wire)

        def program(bare: Transport, stages: OnnxStages = stages) -> float:
            transport = CountingTransport(bare)
            forward = OnnxForward(stages, shape, transport)
            x = split(whole, TIME, transport)
            forward(x)
            y = forward(x)
            time, space = x.layout, y.layout
            hops = [(time, space), (space, time), (time, space)] * 2
            due = sum((switch_traffic(a, b, transport.rank, wire) for a, b in hops), Traffic())
            assert transport.sent == due
            return float((gather(y, bare) - expected).norm() / expected.norm())

        worst = max(run_ranks(n, program))
        print(f"{sizes} N={n} {wire}: relative error {worst:.1e}")
        assert worst <= limit


def test_a_binding_refuses_what_onnx_runtime_would_read_wrongly(shipped) -> None:
    """ONNX Runtime takes the address of a transposed tensor and reads it in the wrong order without a word."""
    blocks, files = shipped
    channels = blocks[0].norm1.normalized_shape[0]
    binding = Binding(open_session(onnx.load(files[0].path)))
    crossed = torch.randn(1, 4, 6, channels).transpose(1, 2)
    with pytest.raises(InvalidTask, match="must be contiguous"):
        binding.bind_input("x", crossed)
    with pytest.raises(InvalidTask, match="cannot bind"):
        binding.bind_input("x", torch.zeros(1, 4, 6, channels, dtype=torch.bfloat16))
    x, y = crossed.contiguous(), torch.empty(1, 6, 4, channels)
    binding.bind_input("x", x)
    binding.bind_output("y", y)
    binding.run()
    assert torch.allclose(y, alone(blocks[:1], x), atol=1e-5)


def test_a_binding_keeps_its_tensors_alive(shipped) -> None:
    """A temporary that nobody else holds is still there, and unchanged, when the session runs."""
    blocks, files = shipped
    channels = blocks[0].norm1.normalized_shape[0]
    binding, y = Binding(open_session(onnx.load(files[0].path))), torch.empty(1, 8, 64, channels)
    binding.bind_input("x", torch.ones(1, 8, 64, channels))
    binding.bind_output("y", y)
    scribbles = [torch.full((1, 8, 64, channels), float("nan")) for _ in range(20)]
    binding.run()
    assert len(scribbles) == 20
    assert torch.allclose(y, alone(blocks[:1], torch.ones(1, 8, 64, channels)), atol=1e-5)


def test_what_cannot_be_folded_or_chained_is_refused(shipped, tmp_path: Path) -> None:
    _, files = shipped
    with pytest.raises(InvalidTask, match="torch engine"):
        fold(onnx.load(files[0].path), 2, Wire.INT8, join_dim=None, cut_dim=1)
    with pytest.raises(InvalidTask, match="different dimensions"):
        OnnxStages([files[0], files[0]], 2)
    with pytest.raises(InvalidTask, match="different dimensions"):
        OnnxStages([StageFile(files[0].path, whole=SPACE, cut=SPACE)], 2)
    with pytest.raises(InvalidTask, match="folded for 2 ranks"):
        run_ranks(1, lambda transport: OnnxForward(OnnxStages(files, 2), (1, 4, 4, 64), transport))
    if Device.CUDA.provider not in ort.get_available_providers():
        with pytest.raises(InvalidTask, match="no CUDAExecutionProvider"):
            open_session(onnx.load(files[0].path), Device.CUDA)
