"""Starts and stops the processes of a rank group."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import ClassVar, Protocol

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it

from cloud_node.dsp.rank import STORE_VARIABLE, TOKEN_VARIABLE, main
from cloud_node.dsp.rendezvous import HOST, loopback_store
from skyshore.domain.errors import Internal


class Launcher(Protocol):
    """Starts ranks; they connect to the front themselves."""

    foreign: ClassVar[bool]
    """Whether the ranks are started from outside, with a run name of their own."""

    async def start(self, front: str, run: str, token: str) -> None:
        """Start all ranks. They send `run` and `token` when they connect to `front` (host:port)."""
        ...

    async def ended(self) -> str:
        """Return once a process that was started has ended, with its name; it may end before it connects."""
        ...

    async def stop(self, pids: Iterable[int]) -> None:
        """End all ranks, stopped or stuck ones too; `pids` are those that connected."""
        ...


@dataclass(slots=True)
class RankCommand:
    """Command line of a rank."""

    program: str
    """module:factory of the `RankProgram`."""
    argument: str = ""
    """String for the factory."""
    threads: int = 1
    start_s: float = 60.0

    def arguments(self, front: str) -> list[str]:
        """Command line of `cloud_node.dsp.rank`."""
        where = [f"--front={front}", f"--start-s={self.start_s}"]
        return [*where, f"--program={self.program}", f"--argument={self.argument}", f"--threads={self.threads}"]

    def environment(self, token: str) -> dict[str, str]:
        """Variables for ranks that all live on this host."""
        return {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(self.threads), TOKEN_VARIABLE: token}


class ForkLauncher:
    """All ranks on this host, forked from a server that has torch loaded: a rebuild takes tenths of a second.

    Ranks get the variables torchrun would set, so they run the same code under either.
    """

    foreign: ClassVar[bool] = False

    def __init__(self, size: int, command: RankCommand) -> None:
        self._size, self._command = size, command
        self._ranks: list[BaseProcess] = []
        self._store: TCPStore | None = None

    async def start(self, front: str, run: str, token: str) -> None:
        """See `Launcher.start`. The first start loads torch, in a thread."""
        if self._ranks:
            raise Internal("the ranks are running already; stop them first")
        # A store per run: keys of a broken run must not meet those of the next.
        self._store = loopback_store()
        await asyncio.to_thread(self._fork, front, run, token, self._store.port)

    def _fork(self, front: str, run: str, token: str, port: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["cloud_node.dsp.rank", self._command.program.partition(":")[0]])
        rendezvous = {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(self._size),
            "TORCHELASTIC_RUN_ID": run,
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            **self._command.environment(token),
        }
        for rank in range(self._size):
            what = ({**rendezvous, "RANK": str(rank)}, self._command.arguments(front))
            process = context.Process(target=_forked, args=what, daemon=True, name=f"rank {rank}")
            process.start()
            self._ranks.append(process)

    async def ended(self) -> str:
        """See `Launcher.ended`."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        for rank in self._ranks:
            loop.add_reader(rank.sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            for rank in self._ranks:
                loop.remove_reader(rank.sentinel)
        ended = [f"{rank.name} died with exit code {rank.exitcode}" for rank in self._ranks if not rank.is_alive()]
        return f"{', '.join(ended)}; see its output on stderr"

    async def stop(self, pids: Iterable[int]) -> None:
        """See `Launcher.stop`."""
        ranks, self._ranks, self._store = self._ranks, [], None
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            await asyncio.to_thread(rank.join)


def _forked(environment: dict[str, str], arguments: list[str]) -> None:
    os.environ.update(environment)
    main(arguments)


@dataclass(slots=True)
class TorchrunLauncher:
    """All ranks on this host, under one torchrun agent; slower to rebuild than `ForkLauncher`, but every rank is fresh.

    To span hosts start the same command by hand on each, with --nnodes and a rendezvous endpoint (see docs/dsp.md), and
    give the group an `ExternalLauncher`.
    """

    size: int
    command: RankCommand
    foreign: ClassVar[bool] = False
    _agent: asyncio.subprocess.Process | None = None
    _store: TCPStore | None = None

    async def start(self, front: str, run: str, token: str) -> None:
        """See `Launcher.start`."""
        if self._agent is not None:
            raise Internal("the ranks are running already; stop them first")
        torchrun = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={self.size}", "--max-restarts=0"]
        self._store = loopback_store()  # torchrun's own would listen on every interface
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={HOST}:{self._store.port}", "--rdzv-conf=is_host=0"]
        rendezvous += [f"--rdzv-id={run}", f"--local-addr={HOST}"]
        meeting = {STORE_VARIABLE: f"{HOST}:{self._store.port}", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        rank = ["-m", "cloud_node.dsp.rank", *self.command.arguments(front)]
        self._agent = await asyncio.create_subprocess_exec(
            sys.executable,
            *torchrun,
            *rendezvous,
            *rank,
            env={**os.environ, **self.command.environment(token), **meeting},
            stdin=asyncio.subprocess.DEVNULL,
        )

    async def ended(self) -> str:
        """See `Launcher.ended`."""
        if self._agent is None:
            raise Internal("nothing was started")
        return f"torchrun ended with exit code {await self._agent.wait()}; see its output on stderr"

    async def stop(self, pids: Iterable[int]) -> None:
        """See `Launcher.stop`. Ranks first: torchrun's own stop would wait half a minute for one that is stuck."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent, self._agent = self._agent, None
        store, self._store = self._store, None  # torchrun needs it until it has ended
        if agent is None:
            return
        try:
            await asyncio.wait_for(agent.wait(), 2.0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                agent.terminate()
        try:
            await asyncio.wait_for(agent.wait(), 5.0)
        except TimeoutError:
            agent.kill()
            await agent.wait()
        del store


class ExternalLauncher:
    """Ranks that another program starts and restarts, on this or other hosts."""

    foreign: ClassVar[bool] = True

    async def start(self, front: str, run: str, token: str) -> None:
        """Do nothing: the ranks are started from outside."""

    async def ended(self) -> str:
        """Never return: a rank's end is seen by its connection only."""
        await asyncio.Event().wait()
        return ""

    async def stop(self, pids: Iterable[int]) -> None:
        """Do nothing: ranks end when the front disconnects, and their own launcher starts them again."""
