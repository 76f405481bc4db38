"""DSP on accelerators: stage time, wire conversion, and NCCL beside the count of bytes where there are several GPUs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.result import BenchResult, Metric
from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.baselines.methods import METHODS
from cloud_node.dsp.codec import decode, encode, wire_buffers
from cloud_node.dsp.cost import pair_flops_per_token
from cloud_node.dsp.switch import split
from cloud_node.dsp.transports.nccl import NcclTransport
from cloud_node.dsp.transports.port import SoloTransport, Transport
from cloud_node.dsp.wire import Wire
from skyshore.report.host import Setting

REPEATS = 20
SHAPE, HEADS = (1, 16, 1024, 1152), 16
DTYPE = torch.bfloat16


def run() -> BenchResult:
    """Measure what this host has."""
    what: dict[str, Setting] = {
        "shape": str(SHAPE),
        "dtype": str(DTYPE),
        "heads": HEADS,
        "torch": torch.__version__,
    }
    if not torch.cuda.is_available():
        return BenchResult("dsp_gpu", what, 0, (), ("an NVIDIA GPU: torch sees none on this host",))
    count = torch.cuda.device_count()
    results = [*_stages(), *_wires()]
    missing: tuple[str, ...] = ()
    if count > 1:
        results += [metric for n in range(2, count + 1) if HEADS % n == 0 for metric in _nccl(n)]
    else:
        missing = ("NCCL between GPUs: this host has one",)
    return BenchResult("dsp_gpu", what | {"gpu": torch.cuda.get_device_name(0)}, REPEATS, tuple(results), missing)


def _milliseconds(work: Callable[[], object]) -> list[float]:
    """Device time of each repeat, by events; three rounds warm up."""
    times = []
    for repeat in range(REPEATS + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if repeat >= 3:
            times.append(begin.elapsed_time(end))
    return times


def _blocks() -> list[Block]:
    torch.manual_seed(0)
    return [Block(SHAPE[-1], HEADS, axis).eval().to("cuda", DTYPE) for axis in (SPACE, TIME)]


@torch.inference_mode()
def _stages() -> list[Metric]:
    x = torch.randn(SHAPE, device="cuda", dtype=DTYPE)
    found, total = [], 0.0
    for block, name in zip(_blocks(), ("spatial", "temporal"), strict=True):
        times = _milliseconds(lambda block=block: block(x))  # type: ignore[misc]
        total += statistics.median(times)
        found.append(Metric.of_repeats(f"{name} stage, one GPU", times, "ms"))
    flops = pair_flops_per_token(SHAPE[3], SHAPE[2], SHAPE[1]) * SHAPE[0] * SHAPE[1] * SHAPE[2]
    found.append(Metric("rate R of a block pair, one GPU", flops / total / 1e9, "TFLOP/s"))
    return found


@torch.inference_mode()
def _wires() -> list[Metric]:
    x = torch.randn(SHAPE, device="cuda", dtype=DTYPE)
    y, found = torch.empty_like(x), []
    for wire in Wire:
        (buffer,) = wire_buffers([SHAPE], wire, x)

        def both(wire: Wire = wire, buffer: torch.Tensor = buffer) -> None:
            encode(x, wire, buffer)
            decode(buffer, wire, y)

        found.append(Metric.of_repeats(f"to the {wire} wire and back, whole activation", _milliseconds(both), "ms"))
    return found


def _nccl(n: int) -> list[Metric]:
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    port = str(29500 + os.getpid() % 1000)
    mp.spawn(  # type: ignore[attr-defined,no-untyped-call]
        _nccl_rank, args=(n, port, answers), nprocs=n
    )
    times: dict[str, list[float]] = answers.get()
    base = times["dsp"]
    return [
        Metric.of_repeats(f"one pair by {name}, N={n}, NCCL", samples, "ms", against="dsp", against_samples=base)
        for name, samples in times.items()
    ]


def _nccl_rank(rank: int, n: int, port: str, answers: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=n, timeout=timedelta(seconds=120))
    transport: Transport = NcclTransport() if n > 1 else SoloTransport()
    blocks, whole = _blocks(), torch.randn(SHAPE, device="cuda", dtype=DTYPE)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    with torch.inference_mode():
        forwards = {name: method.prepare(blocks, SHAPE, transport) for name, method in METHODS.items()}
        for _ in range(REPEATS + 3):
            for name, forward in forwards.items():
                x = split(whole.view(forward.start.shape), forward.start.dim or 0, transport)
                dist.barrier()
                torch.cuda.synchronize()
                began_s = time.perf_counter()
                forward(x)
                torch.cuda.synchronize()
                times[name].append((time.perf_counter() - began_s) * 1e3)
    if rank == 0:
        answers.put({name: samples[3:] for name, samples in times.items()})  # type: ignore[attr-defined]
    dist.destroy_process_group()
