"""Stages of ONNX Runtime between switches, bound to the buffers that are exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor

from cloud_node.dsp.fold import INPUT, OUTPUT, SIZES, fold, part_names
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.switch import Sharded
from cloud_node.dsp.transports.port import Transport
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask

_ELEMENT = {torch.float32: np.float32, torch.float16: np.float16, torch.int64: np.int64}
_WIRE_DTYPE = {Wire.EXACT: torch.float32, Wire.FP16: torch.float16}


class Device(StrEnum):
    """Where sessions run."""

    CPU = "cpu"
    CUDA = "cuda"

    @property
    def provider(self) -> str:
        """ONNX Runtime's name for it."""
        return {Device.CPU: "CPUExecutionProvider", Device.CUDA: "CUDAExecutionProvider"}[self]


def open_session(model: onnx.ModelProto, device: Device = Device.CPU, threads: int = 1) -> ort.InferenceSession:
    """A session for one stage.

    Raises:
        InvalidTask: this build of ONNX Runtime lacks the device's provider.
    """
    if device.provider not in ort.get_available_providers():
        raise InvalidTask(f"onnxruntime has no {device.provider} here; install onnxruntime-gpu or use the CPU")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the core that carries the exchange.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=[device.provider])


class Binding:
    """A session bound to tensors. Owns them: ONNX Runtime keeps bare pointers, and a freed buffer corrupts the heap."""

    def __init__(self, session: ort.InferenceSession, device: Device = Device.CPU) -> None:
        self._session, self._device = session, device
        self._binding = session.io_binding()
        self._tensors: dict[str, Tensor] = {}
        self._somewhere = torch.empty(1, device=device.value)

    def bind_input(self, name: str, tensor: Tensor) -> None:
        """Read `name` from `tensor` at every run.

        Raises:
            InvalidTask: the tensor is not contiguous (ONNX Runtime would read garbage), or on another device.
        """
        self._binding.bind_input(name, *self._place(name, tensor))

    def bind_output(self, name: str, tensor: Tensor) -> None:
        """Write `name` into `tensor` at every run; raises as `bind_input`."""
        self._binding.bind_output(name, *self._place(name, tensor))

    def run(self) -> None:
        """Compute from and into the bound tensors."""
        self._session.run_with_iobinding(self._binding)

    def _place(self, name: str, tensor: Tensor) -> tuple[str, int, type, tuple[int, ...], int]:
        if not tensor.is_contiguous():
            raise InvalidTask(f"{name} must be contiguous to be bound; its strides are {tensor.stride()}")
        if tensor.device.type != self._device.value or tensor.dtype not in _ELEMENT:
            raise InvalidTask(f"{name} is {tensor.dtype} on {tensor.device}, which a {self._device} stage cannot bind")
        self._tensors[name] = tensor
        where, element = (self._device.value, tensor.device.index or 0), _ELEMENT[tensor.dtype]
        # An empty tensor has no address, and ONNX Runtime wants one.
        address = (tensor if tensor.numel() else self._somewhere).data_ptr()
        return *where, element, tuple(tensor.shape), address


@dataclass(frozen=True, slots=True)
class StageFile:
    """A stage on disk, the dimension it needs whole, and the one it is cut along meanwhile."""

    path: Path
    whole: int
    cut: int


class OnnxStages:
    """Sessions of a chain of stages for one group size; shared by all shapes, since sizes are run-time values.

    Raises:
        InvalidTask: neighbouring stages need the same layout (export them as one), or the wire has no ONNX cast.
    """

    def __init__(
        self,
        files: Sequence[StageFile],
        ranks: int,
        *,
        wire: Wire = Wire.EXACT,
        device: Device = Device.CPU,
        threads: int = 1,
    ) -> None:
        self.cut_dims = [file.cut for file in files]
        if any(a == b for a, b in pairwise(self.cut_dims)) or any(file.cut == file.whole for file in files):
            raise InvalidTask("neighbouring stages must be cut along different dimensions, and not the one they mix")
        self.ranks, self.wire, self.device = ranks, wire, device
        self.sessions = []
        for index, file in enumerate(files):
            before = self.cut_dims[index - 1] if index else None
            after = self.cut_dims[index + 1] if index + 1 < len(files) else None
            folded = fold(onnx.load(file.path), ranks, wire, join_dim=before, cut_dim=after)
            self.sessions.append(open_session(folded, device, threads))

    def blocks(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
        """Tensors of those shapes, side by side in one allocation."""
        sizes = [prod(shape) for shape in shapes]
        whole = torch.empty(sum(sizes), dtype=dtype, device=self.device.value)
        return [part.view(shape) for part, shape in zip(torch.split(whole, sizes), shapes, strict=True)]


class OnnxForward:
    """A chain of stages on one rank for one shape. Stages read from receive buffers and write into send buffers.

    The residual stream moves with every switch. What a rank keeps for itself is one buffer for both sides.
    """

    def __init__(self, stages: OnnxStages, shape: tuple[int, ...], transport: Transport) -> None:
        if transport.size != stages.ranks:
            raise InvalidTask(f"stages folded for {stages.ranks} ranks cannot run on {transport.size}")
        self._transport = transport
        self._layouts = [Layout(shape).cut(dim, transport.size) for dim in stages.cut_dims]
        self.start, self.end = self._layouts[0], self._layouts[-1]
        (self._input,) = stages.blocks([self.start.local_shape(transport.rank)], torch.float32)
        (self._output,) = stages.blocks([self.end.local_shape(transport.rank)], torch.float32)
        self._hops = [_Hop(a, b, transport.rank, stages) for a, b in pairwise(self._layouts)]
        self._bindings = [self._bind(index, stages) for index in range(len(self._layouts))]

    def __call__(self, x: Sharded) -> Sharded:
        """One forward. The result lives in this object's buffer until the next call."""
        if x.layout != self.start:
            raise InvalidTask(f"these stages start from {self.start}, not {x.layout}")
        self._input.copy_(x.local)
        for index, binding in enumerate(self._bindings):
            if binding is not None:
                binding.run()
            if index < len(self._hops):
                hop = self._hops[index]
                self._transport.exchange(hop.sends, hop.receives).wait()
        return Sharded(self._output, self.end)

    def _bind(self, index: int, stages: OnnxStages) -> Binding | None:
        """None where this rank holds no tokens: nothing to compute, and empty tensors have no address to bind."""
        if not self._layouts[index].tokens(self._transport.rank):
            return None
        binding = Binding(stages.sessions[index], stages.device)
        if index == 0:
            binding.bind_input(INPUT, self._input)
        else:
            for name, part in zip(part_names(INPUT, stages.ranks), self._hops[index - 1].receives, strict=True):
                binding.bind_input(name, part)
        if index == len(self._hops):
            binding.bind_output(OUTPUT, self._output)
            return binding
        binding.bind_input(SIZES, torch.tensor(self._layouts[index + 1].splits, device=stages.device.value))
        for name, part in zip(part_names(OUTPUT, stages.ranks), self._hops[index].sends, strict=True):
            binding.bind_output(name, part)
        return binding


class _Hop:
    """Buffers of one switch."""

    def __init__(self, source: Layout, target: Layout, rank: int, stages: OnnxStages) -> None:
        dtype = _WIRE_DTYPE[stages.wire]
        outgoing, coming = [], []
        for peer in range(stages.ranks):
            outgoing.append(_block_shape(source, rank, target, peer))
            coming.append(_block_shape(source, peer, target, rank))
        self.sends, self.receives = stages.blocks(outgoing, dtype), stages.blocks(coming, dtype)
        self.receives[rank] = self.sends[rank]


def _block_shape(source: Layout, holder: int, target: Layout, receiver: int) -> tuple[int, ...]:
    shape = list(source.local_shape(holder))
    shape[target.dim or 0] = target.splits[receiver]
    return tuple(shape)
