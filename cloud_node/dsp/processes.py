"""Ranks as processes of this host: for tests, the bench and trying things out. A service uses `group` instead."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it

from cloud_node.dsp.rendezvous import loopback_store
from skyshore.domain.errors import DeadlineExceeded, NodeUnavailable

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RankExit:
    """How one rank ended."""

    rank: int
    answer: Any = None
    error: BaseException | None = None
    exit_code: int | None = None


def run_processes(
    size: int, program: Callable[..., Answer], *args: object, timeout_s: float = 60.0, interface: str = "lo"
) -> list[Answer]:
    """Run `program(*args)` in `size` processes that form one gloo group; answers in rank order.

    `program` must be importable. Each process computes on one thread.

    Raises:
        NodeUnavailable: a rank was killed.
        DeadlineExceeded: the ranks were not done within `timeout_s`; they are killed.
        Exception: what the lowest failing rank raised.
    """
    exits = watch_processes(size, program, *args, timeout_s=timeout_s, interface=interface)
    errors = [end.error for end in exits if end.error is not None]
    if errors:
        raise errors[0]
    return [end.answer for end in exits]


def watch_processes(
    size: int, program: Callable[..., Answer], *args: object, timeout_s: float = 60.0, interface: str = "lo"
) -> list[RankExit]:
    """As `run_processes`, but report how every rank ended instead of raising."""
    context = mp.get_context("forkserver")
    # Forking from a server that has torch loaded spares every rank seconds of imports.
    context.set_forkserver_preload(["torch", "torch.distributed", "cloud_node.classify.model"])
    store = loopback_store()
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe(duplex=False)
        start = _Start(rank, size, store.port, timeout_s, interface)
        process = context.Process(target=_rank, args=(theirs, start, program, args), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return _collect(pipes, processes, time.monotonic() + timeout_s)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _collect(pipes: list[Connection], processes: list[Any], end_s: float) -> list[RankExit]:
    """Read one answer from each pipe; a pipe that closes without one belongs to a dead rank."""
    exits: dict[int, RankExit] = {}
    while len(exits) < len(pipes):
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in exits]
        ready = wait(waiting, max(0.0, end_s - time.monotonic()))
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            exits[rank] = _read(rank, pipes[rank], processes[rank])
        if not ready:
            late = {rank for rank in range(len(pipes)) if rank not in exits}
            exits |= {
                rank: RankExit(rank, error=DeadlineExceeded(f"rank {rank} was not done in time")) for rank in late
            }
    return [exits[rank] for rank in range(len(pipes))]


def _read(rank: int, pipe: Connection, process: Any) -> RankExit:
    try:
        end: RankExit = pipe.recv()
    except EOFError:
        process.join(1.0)
        gone = NodeUnavailable(f"rank {rank} died with exit code {process.exitcode}")
        return RankExit(rank, error=gone, exit_code=process.exitcode)
    return end


@dataclass(frozen=True, slots=True)
class _Start:
    """What a rank needs to find the others."""

    rank: int
    size: int
    port: int
    timeout_s: float
    interface: str


def _rank(pipe: Connection, start: _Start, program: Callable[..., object], args: tuple[object, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = start.interface
    torch.set_num_threads(1)
    limit = timedelta(seconds=start.timeout_s)
    try:
        store = TCPStore("127.0.0.1", start.port, is_master=False, timeout=limit)
        dist.init_process_group("gloo", store=store, rank=start.rank, world_size=start.size, timeout=limit)
        pipe.send(RankExit(start.rank, answer=program(*args)))
    except Exception as error:
        traceback.print_exc()
        pipe.send(RankExit(start.rank, error=error))
    finally:
        pipe.close()
        # Tearing gloo down waits for peers that may be dead; the process ends anyway.
        os._exit(0)
