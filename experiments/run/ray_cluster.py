"""Runs cells on a Ray cluster: this machine's own, or an existing one by its address. A lost worker loses its cell.

Workers need Skyshore installed, from the same sources: a worker that runs other code refuses the cell.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from experiments.plan.code_version import sources_sha256
from experiments.plan.inputs import Inputs
from experiments.plan.job import CellJob
from experiments.run.processes import Event, Failed, Finished
from experiments.run.work import perform
from skyshore.domain.errors import Internal, SkyshoreError


def run_on_ray(jobs: Sequence[CellJob], scratch: Path, address: str, parallel: int) -> Iterator[Event]:
    """Yield events until every job has finished or failed. Closing the iterator cancels what is left.

    Without an `address`, a cluster of `parallel` CPUs is started here and stopped afterwards.
    """
    if not jobs:
        return
    _connect(address, parallel)
    remote = ray.remote(_cell).options(num_cpus=1, max_retries=0)
    inputs = ray.put(Inputs.read(jobs[0].cell.scenario))
    waiting = {remote.remote(job, inputs): job for job in jobs}
    try:
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            yield _event(waiting.pop(reference), reference, scratch)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _connect(address: str, parallel: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(num_cpus=parallel, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def _event(job: CellJob, reference: ray.ObjectRef[Any], scratch: Path) -> Event:
    try:
        files: Mapping[str, bytes] = ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        reason = str(cause) if isinstance(cause, SkyshoreError | OSError) else str(error)
        return Failed(job, reason, crashed=False)
    except RayError as error:
        return Failed(job, f"its worker was lost: {type(error).__name__}", crashed=True)
    folder = scratch / job.cell.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Finished(job, folder)


def _cell(job: CellJob, inputs: Inputs) -> dict[str, bytes]:
    """Runs on a worker, which shares no folder with the caller: files are passed as bytes."""
    if sources_sha256() != job.sources_sha256:
        raise Internal("this worker has other sources of Skyshore; install the same version on every machine")
    with tempfile.TemporaryDirectory(prefix="skyshore-cell-") as place:
        scenario, results = inputs.write(Path(place) / "inputs"), Path(place) / "cell"
        results.mkdir()
        perform(replace(job, cell=replace(job.cell, scenario=scenario)), results)
        return {path.name: path.read_bytes() for path in results.iterdir()}
