"""Runs cells in processes of this machine, many in each: a crash loses the cell under way and nothing else."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from experiments.plan.job import CellJob
from experiments.run.work import perform
from skyshore.domain.errors import SkyshoreError

STOP_S = 15.0
"""A live cell needs this long to stop its processes."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A cell is running."""

    job: CellJob
    share: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell is done; its files are in `folder`."""

    job: CellJob
    folder: Path


@dataclass(frozen=True, slots=True)
class Failed:
    """A cell has no result."""

    job: CellJob
    reason: str
    crashed: bool
    """Whether the worker was lost, so that another try may succeed; otherwise the cell itself cannot be run."""


Event = Progressed | Finished | Failed


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: CellJob
    folder: Path

    def give(self, job: CellJob, scratch: Path) -> None:
        """Hand over the next cell."""
        self.job, self.folder = job, scratch / job.cell.name
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(BrokenPipeError):  # the worker was lost just now; reading from it says so
            self.pipe.send((job, self.folder))


def run_in_processes(jobs: Sequence[CellJob], scratch: Path, parallel: int) -> Iterator[Event]:
    """Yield events until every job has finished or failed. Closing the iterator stops the workers.

    A worker runs many cells, so it loads a policy's machine code once. `scratch` holds one folder a cell; a folder is
    whole only once its `Finished` was yielded.
    """
    # Forks from a process without threads that has everything imported: safe, and a worker starts in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.run.work"])
    waiting, workers = list(reversed(jobs)), list[_Worker]()
    try:
        while waiting or workers:
            while waiting and len(workers) < parallel:
                workers.append(_start(context, waiting.pop(), scratch))
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                event = _received(worker)
                crashed = isinstance(event, Failed) and event.crashed
                if crashed or (waiting == [] and not isinstance(event, Progressed)):
                    _stop([worker])
                    workers.remove(worker)
                elif not isinstance(event, Progressed):
                    worker.give(waiting.pop(), scratch)
                yield event
    finally:
        _stop(workers)


def _start(context: ForkServerContext, job: CellJob, scratch: Path) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), name="cells")
    process.start()
    there.close()  # so that the pipe closes when the worker ends
    worker = _Worker(process, here, job, scratch)
    worker.give(job, scratch)
    return worker


def _received(worker: _Worker) -> Event:
    try:
        said = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return Failed(worker.job, f"its worker ended with status {worker.process.exitcode}", crashed=True)
    if isinstance(said, float):
        return Progressed(worker.job, said)
    return Failed(worker.job, said, crashed=False) if said else Finished(worker.job, worker.folder)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(STOP_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def _work(pipe: Connection) -> None:
    # Ctrl-C reaches the whole process group; the parent handles it and then asks this process to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    while True:
        try:
            job, folder = pipe.recv()
        except EOFError:  # the parent is gone
            return
        pipe.send(_performed(job, folder, pipe))


def _performed(job: CellJob, folder: Path, pipe: Connection) -> str:
    """Run a cell. Returns why it has no result, or nothing."""

    def progress(share: float) -> bool:
        pipe.send(share)
        return True

    try:
        perform(job, folder, progress)
    except (SkyshoreError, OSError) as error:
        return str(error) or type(error).__name__
    except Exception:  # reported with its traceback: only a defect of Skyshore comes here
        return traceback.format_exc()
    return ""
