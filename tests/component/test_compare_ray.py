"""A sweep on Ray gives what processes give, and a worker that is killed costs its cell only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install -e '.[sim]'")
pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")

from experiments.plan.bundle import Bundle
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.run.processes import Event, Failed, Finished, run_in_processes
from experiments.run.ray_cluster import run_on_ray
from experiments.run.sweep import finish, pending, run_cells

# Ray leaves sockets and files to its own end, and warns of its future defaults.
pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("default")]
DEMO = Path(__file__).parents[2] / "scenarios" / "demo.toml"


def experiment(path: Path) -> Experiment:
    return Experiment(Inputs.read(path), ("least_loaded", "random"), (1, 2))


def test_ray_gives_the_same_cells_as_processes(tmp_path):
    bundles = [Bundle.begin(tmp_path / name, experiment(DEMO)) for name in ("ray", "processes")]
    swept = run_cells(bundles[0], lambda jobs, scratch: run_on_ray(jobs, scratch, "", 2), lambda event: None)
    assert not swept.failures
    run_cells(bundles[1], lambda jobs, scratch: run_in_processes(jobs, scratch, 2), lambda event: None)
    for bundle in bundles:
        finish(bundle)
    ours, theirs = (bundle.results() for bundle in bundles)
    assert [r.decisions_sha256 for r in ours] == [r.decisions_sha256 for r in theirs]
    assert [r.figures for r in ours] == [r.figures for r in theirs]
    summaries = [json.loads((bundle.folder / "summary.json").read_text()) for bundle in bundles]
    assert summaries[0] == summaries[1]


def test_a_killed_ray_worker_costs_its_cell_only_and_a_rerun_makes_it(tmp_path):
    long = tmp_path / "long.toml"
    long.write_text(DEMO.read_text().replace("duration_s = 60", "duration_s = 1500"), encoding="utf-8")
    bundle = Bundle.begin(tmp_path / "run", experiment(long))
    events: list[Event] = []
    sweep = run_on_ray(bundle.jobs(), bundle.scratch, "", 1)
    events.append(next(sweep))  # the first cell is done, so the next one is on its way
    _kill_a_worker()
    events += sweep
    lost = [event for event in events if isinstance(event, Failed)]
    assert [event.crashed for event in lost] == [True]
    done = [event for event in events if isinstance(event, Finished)]
    assert len(done) == 3
    for event in done:
        bundle.accept(event.job.cell, event.folder)
    assert [job.cell for job in pending(bundle)] == [lost[0].job.cell]


def _kill_a_worker() -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install 'psutil>=6'")
    while True:
        for process in psutil.Process().children(recursive=True):
            if (process.cmdline() or [""])[0].startswith("ray::_cell"):
                process.kill()
                return
