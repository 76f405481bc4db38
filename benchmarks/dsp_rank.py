"""One rank of the DSP bench: reads cases as JSON lines, runs them with its peers, answers with JSON lines.

Started by `benchmarks.dsp_fleet`, inside a network namespace where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it

from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.baselines.methods import METHODS, DynamicSequence, Forward
from cloud_node.dsp.fold import INPUT, OUTPUT
from cloud_node.dsp.onnx_engine import Binding, open_session
from cloud_node.dsp.switch import split
from cloud_node.dsp.transports.gloo import GlooTransport
from cloud_node.dsp.transports.p2p import P2PTransport
from cloud_node.dsp.transports.port import Pending, SoloTransport, Transport
from cloud_node.dsp.transports.wrappers import CountingTransport
from cloud_node.dsp.wire import Wire

TIMEOUT_S = 120.0
_TAGS = 1 << 10
"""More exchanges than any one forward makes."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Sizes of one recorded exchange, in bytes, by peer."""

    sends: tuple[int, ...]
    receives: tuple[int, ...]


class RecordingTransport:
    """Notes what passes, so that the same exchanges can be repeated without the computation between them."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.rank, self.size = inner.rank, inner.size
        self.exchanges: list[Exchange] = []

    def exchange(self, sends: Sequence[Tensor | None], receives: Sequence[Tensor | None]) -> Pending:
        """Note, then pass on."""
        sizes = [tuple(0 if buffer is None else buffer.nbytes for buffer in slots) for slots in (sends, receives)]
        self.exchanges.append(Exchange(*sizes))
        return self._inner.exchange(sends, receives)


class Rank:
    """State between cases: the model, the groups, and a tag that never repeats."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank = rank
        self._groups = {n: dist.new_group(list(range(n))) for n in range(2, world + 1)}
        self._cases = self._tag = 0
        self._blocks: dict[tuple[int, int, int], list[Block]] = {}
        self._stages: dict[tuple[str, int], tuple[Callable[[], object], Tensor, Tensor]] = {}
        self._recorded: dict[tuple[str, int, str], list[Exchange]] = {}

    def blocks(self, case: dict[str, Any]) -> list[Block]:
        """The same random weights on every rank."""
        key = (case["channels"], case["heads"], case["pairs"])
        if key not in self._blocks:
            torch.manual_seed(0)
            axes = (SPACE, TIME) * key[2]
            self._blocks[key] = [Block(key[0], key[1], axis).eval() for axis in axes]
        return self._blocks[key]

    def transport(self, carrier: str, n: int) -> Transport:
        """A fresh view of the first `n` ranks."""
        if n == 1:
            return SoloTransport()
        self._tag += _TAGS
        if carrier == "gloo":
            return GlooTransport(self._groups[n], timeout_s=TIMEOUT_S)
        order = carrier == "p2p"
        return P2PTransport(range(n), timeout_s=TIMEOUT_S, first_tag=self._tag, receives_first=order)

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """One case; ranks beyond its group only answer."""
        self._cases += 1
        # From the count of cases, which idle ranks share, so that tags agree when they join again.
        self._tag = self._cases * 4 * _TAGS
        if self._rank >= case["n"]:
            return {}
        with torch.inference_mode():
            work = {
                "communicate": self._communicate,
                "forward": self._forward,
                "accuracy": self._accuracy,
                "stage": self._stage,
            }
            return work[case["op"]](case)

    def _prepare(self, case: dict[str, Any], transport: Transport) -> Forward:
        blocks, shape = self.blocks(case), tuple(case["shape"])
        if case["method"] != "dsp":
            return METHODS[case["method"]].prepare(blocks, shape, transport)
        wire, chunks = Wire(case.get("wire", "exact")), case.get("chunks", 1)
        return DynamicSequence(blocks, shape, transport, wire=wire, chunks=chunks)

    def _input(self, case: dict[str, Any], forward: Forward, transport: Transport) -> Any:
        whole = torch.randn(case["shape"], generator=torch.Generator().manual_seed(1))
        return split(whole.view(forward.start.shape), forward.start.dim or 0, transport)

    def _communicate(self, case: dict[str, Any]) -> dict[str, Any]:
        """Seconds and interface bytes of a method's exchanges alone."""
        key = (case["method"], case["n"], case.get("wire", "exact"))
        if key not in self._recorded:
            recorder = RecordingTransport(self.transport("p2p", case["n"]))
            forward = self._prepare(case, recorder)
            forward(self._input(case, forward, recorder))
            self._recorded[key] = recorder.exchanges
        transport = CountingTransport(self.transport(case["carrier"], case["n"]))
        buffers = [_buffers(exchange) for exchange in self._recorded[key]]
        self._barrier(case["n"])
        wire_before, began_s = _interface_bytes(), time.perf_counter()
        for sends, receives in buffers:
            transport.exchange(sends, receives).wait()
        seconds = time.perf_counter() - began_s
        self._barrier(case["n"])
        return {
            "seconds": seconds,
            "payload_bytes": transport.sent.payload_bytes,
            "interface_bytes": _interface_bytes() - wire_before,
        }

    def _forward(self, case: dict[str, Any]) -> dict[str, Any]:
        """Wall and CPU seconds of one forward, and how far it is from one process."""
        transport = CountingTransport(self.transport(case.get("carrier", "p2p"), case["n"]))
        forward = self._prepare(case, transport)
        x = self._input(case, forward, transport)
        self._barrier(case["n"])
        cpu_s, began_s = time.process_time(), time.perf_counter()
        forward(x)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        self._barrier(case["n"])
        return {"seconds": seconds, "cpu_seconds": cpu_s, "payload_bytes": transport.sent.payload_bytes}

    def _accuracy(self, case: dict[str, Any]) -> dict[str, Any]:
        """Distance of this rank's part from one process: relative (Frobenius) and largest."""
        transport = self.transport("p2p", case["n"])
        forward = self._prepare(case, transport)
        x = self._input(case, forward, transport)
        y = forward(x).local
        expected = torch.randn(case["shape"], generator=torch.Generator().manual_seed(1))
        for block in self.blocks(case):
            expected = block(expected)
        part = split(expected.view(forward.start.shape), forward.start.dim or 0, transport).local
        return {"relative": float((y - part).norm() / part.norm()), "largest": float((y - part).abs().max())}

    def _stage(self, case: dict[str, Any]) -> dict[str, Any]:
        """Seconds of one block on this rank's own tokens, in torch or in ONNX Runtime with bound buffers."""
        block = self.blocks(case)[case["block"]]
        key = (case["engine"], case["block"])
        if key not in self._stages:
            x = torch.randn(case["shape"], generator=torch.Generator().manual_seed(1))
            y = torch.empty_like(x)
            onnx_file = Path(case["path"])
            work = _torch_work(block, x, y) if case["engine"] == "torch" else _onnx_work(onnx_file, x, y)
            self._stages[key] = (work, x, y)
        work, x, y = self._stages[key]
        work()
        began_s = time.perf_counter()
        work()
        seconds = time.perf_counter() - began_s
        return {"seconds": seconds, "error": float((y - block(x)).abs().max())}

    def _barrier(self, n: int) -> None:
        if n > 1:
            dist.barrier(self._groups[n])


def _torch_work(block: Block, x: Tensor, y: Tensor) -> Callable[[], object]:
    return lambda: y.copy_(block(x))


def _onnx_work(path: Path, x: Tensor, y: Tensor) -> Callable[[], object]:
    binding = Binding(open_session(onnx.load(path)))
    binding.bind_input(INPUT, x)
    binding.bind_output(OUTPUT, y)
    return binding.run


def _buffers(exchange: Exchange) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Buffers for one exchange, side by side as the switch makes them."""
    sides = []
    for sizes in (exchange.sends, exchange.receives):
        whole = torch.zeros(sum(sizes), dtype=torch.uint8)
        sides.append([part if part.numel() else None for part in torch.split(whole, list(sizes))])
    return sides[0], sides[1]


def _interface_bytes() -> int:
    """Bytes this host's interface has sent; 0 where it is not ours alone."""
    path = Path("/sys/class/net/eth0/statistics/tx_bytes")
    return int(path.read_text()) if "SKYSHORE_BENCH_NETNS" in os.environ else 0


def main() -> None:
    """Join, then one answer line for each case line until stdin closes."""
    parser = argparse.ArgumentParser()
    for name in ("--rank", "--world", "--port"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--host", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    limit = timedelta(seconds=TIMEOUT_S)
    store = TCPStore(arguments.host, arguments.port, is_master=arguments.rank == 0, timeout=limit)
    dist.init_process_group("gloo", store=store, rank=arguments.rank, world_size=arguments.world, timeout=limit)
    rank = Rank(arguments.rank, arguments.world)
    for line in sys.stdin:
        print(json.dumps(rank.run(json.loads(line))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
