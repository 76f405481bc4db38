"""The rank's side of classification: from raw patches to logits, sharded between the two."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud_node.classify.export import stage_files
from cloud_node.classify.model import BATCH, branches, part_start, pool
from cloud_node.classify.requests import ClassifyRequest, EngineKind
from cloud_node.classify.weights import load
from cloud_node.dsp.cost import Fabric, pair_flops_per_token
from cloud_node.dsp.engine import PlanRunner
from cloud_node.dsp.onnx_engine import OnnxForward, OnnxStages
from cloud_node.dsp.plan import SwitchPlan
from cloud_node.dsp.switch import Sharded, gather
from cloud_node.dsp.transports.port import SoloTransport, Transport
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import InvalidTask

_PROBE_BYTES = 1 << 20


class ClassifyProgram:
    """One rank's model and engine."""

    def __init__(self, weights: Path, engine: EngineKind) -> None:
        self._model, _ = load(weights)
        self._blocks = self._model.spatial_temporal_blocks()
        self._engine = engine
        self._files = stage_files(self._blocks, weights.parent)
        self._stages: dict[tuple[int, Wire], OnnxStages] = {}

    def run(self, request: Mapping[str, Any], part: NDArray[Any], transport: Transport) -> NDArray[Any] | None:
        """See `RankProgram.run`."""
        with torch.inference_mode():
            match request["kind"]:
                case "calibrate":
                    return self._calibrate(transport)
                case "classify":
                    asked = ClassifyRequest.from_json(request)
                    return self._classify(asked, torch.from_numpy(part), transport)
        raise InvalidTask(f"the classifier knows no request of kind {request['kind']}")

    def _classify(self, request: ClassifyRequest, raw: Tensor, transport: Transport) -> NDArray[Any]:
        plan = request.plan(self._model, transport.size, self._engine)
        start = plan.start.with_channels(raw.shape[-1])
        if tuple(raw.shape) != start.local_shape(transport.rank):
            raise InvalidTask(
                f"a part of shape {tuple(raw.shape)} came where {start.local_shape(transport.rank)} is due"
            )
        tokens = self._model.embed(raw, *part_start(start, transport.rank))
        y = self._forward(plan, Sharded(tokens, plan.start), transport, request)
        logits: NDArray[Any] = pool(gather(y.like(self._model.project(y.local)), transport)).numpy()
        return logits

    def _forward(self, plan: SwitchPlan, x: Sharded, transport: Transport, request: ClassifyRequest) -> Sharded:
        if self._engine is EngineKind.TORCH:
            return PlanRunner(plan, transport, request.chunks)(branches(self._blocks), x)
        if plan.start.dim != BATCH:
            return OnnxForward(self._onnx(transport.size, request.wire), plan.start.shape, transport)(x)
        # A batch cut by ranks needs no switch: each rank runs the chain alone on its clips.
        if not x.local.numel():
            return x
        alone = OnnxForward(self._onnx(1, Wire.EXACT), tuple(x.local.shape), SoloTransport())
        return x.like(alone(Sharded(x.local, alone.start)).local)

    def _onnx(self, ranks: int, wire: Wire) -> OnnxStages:
        if (ranks, wire) not in self._stages:
            self._stages[ranks, wire] = OnnxStages(self._files, ranks, wire=wire)
        return self._stages[ranks, wire]

    def _calibrate(self, transport: Transport) -> NDArray[Any]:
        """FLOP/s of a rank at work on one clip, and α and β of the exchange: [flops/s, bytes/s, α s]."""
        config = self._model.config
        request = ClassifyRequest(1, _UNKNOWN)
        plan = request.plan(self._model, 1, self._engine)
        alone = SoloTransport()
        x = Sharded(torch.zeros(config.token_shape(1)), plan.start)
        forward_s = _median_s(lambda: self._forward(plan, x, alone, request), 5)
        flops = pair_flops_per_token(config.channels, config.space, config.frames) * config.pairs
        flops_per_s = flops * config.frames * config.space / forward_s
        if transport.size == 1:
            return np.array([flops_per_s, 1e12, 0.0])
        latency_s = _median_s(lambda: _probe(transport, 16), 20)
        bulk_s = _median_s(lambda: _probe(transport, _PROBE_BYTES), 5)
        # A probe that is mostly latency tells the rate only within a factor of two, however small the difference.
        wire_s = max(bulk_s - latency_s, bulk_s / 2)
        return np.array([flops_per_s, _PROBE_BYTES * (transport.size - 1) / wire_s, latency_s])


def build(argument: str) -> ClassifyProgram:
    """Factory for the rank: `engine:path of the weights`."""
    engine, _, path = argument.partition(":")
    return ClassifyProgram(Path(path), EngineKind(engine))


_UNKNOWN = Fabric(1e9, 1e9)
"""Any fabric will do to plan for one rank."""


def _median_s(work: Callable[[], object], repeats: int) -> float:
    work()
    samples = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began_s)
    return statistics.median(samples)


def _probe(transport: Transport, size: int) -> None:
    sends = [torch.zeros(size, dtype=torch.uint8) for _ in range(transport.size)]
    receives = [torch.empty(size, dtype=torch.uint8) for _ in range(transport.size)]
    transport.exchange(list(sends), list(receives)).wait()
