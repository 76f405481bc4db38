"""The experiment harness as commands: pairs, resuming, losing a worker, Ctrl-C, and bundles that tell when touched."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install -e '.[sim]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[sim]'")

from pyarrow import parquet

from experiments.plan.bundle import Bundle
from experiments.plan.cell import BEST_FIXED_ARM, ORACLE_SCHEDULE, REFERENCES, Cell
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.run.processes import Failed, Finished, run_in_processes
from experiments.run.sweep import finish, pending, run_cells, sweep
from experiments.run.verify import verify

pytestmark = pytest.mark.timeout(180)
SCENARIO = """
name = "small"
seed = 5
duration_s = 20
[[nodes]]
id = "edge-1"
tier = "edge"
profile = "xeon-edge"
[[nodes]]
id = "edge-2"
tier = "edge"
profile = "jetson-orin-nano"
slowdown = 4
[[nodes]]
id = "cloud-1"
tier = "cloud"
profile = "t4"
models = ["smollm2-135m", "nanodet"]
[[links]]
nodes = "cloud-1"
up = { rate_mbit_s = 20, delay_ms = 20, jitter_ms = 2 }
down = { rate_mbit_s = 50, delay_ms = 20 }
joules_per_mb = 0.5
[[classes]]
name = "interactive"
deadline_s = 4
[[workload.llm]]
rate_per_s = RATE
prompt_tokens = 96
output_tokens = 48
service_class = "interactive"
[[workload.cameras]]
count = 2
fps = 5
segment_s = 2
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO.replace("RATE", "3"), encoding="utf-8")
    return path


async def skyshore(*arguments: str, cwd: Path | None = None) -> tuple[int | None, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    out, err = await asyncio.wait_for(child.communicate(), 150)
    return child.returncode, out.decode(), err.decode()


def small(path: Path, **fields: object) -> Experiment:
    given: dict[str, object] = {"policies": ("least_loaded", "random"), "seeds": (5, 6), "rows": False} | fields
    return Experiment(Inputs.read(path), **given)  # type: ignore[arg-type]


def run(bundle: Bundle) -> list[object]:
    events: list[object] = []
    run_cells(bundle, lambda jobs, scratch: run_in_processes(jobs, scratch, 2), events.append)
    finish(bundle)
    return [event for event in events if isinstance(event, Finished | Failed)]


async def test_compare_pairs_policies_on_the_same_requests_and_writes_a_page_that_needs_no_network(scenario, tmp_path):
    out = tmp_path / "run"
    arguments = ("--policies", "least_loaded,busiest,slowest", "--seeds", "3", "--decisions", "--out", str(out))
    status, text, err = await skyshore("compare", str(scenario), *arguments, "--json")
    assert status == 0, err
    summary = json.loads(text)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["complete"] is True and summary["seeds"] == [5, 6, 7]
    by_policy = {group["policy"]: group for group in summary["groups"]}
    requests = [group["figures"]["requests"]["values"] for group in by_policy.values()]
    assert requests[0] == requests[1] == requests[2], "every policy meets the same requests"
    bundle = Bundle.read(out)
    for seed in (5, 6, 7):
        hashes = {r.schedule_sha256 for r in bundle.results() if r.cell.seed == seed}
        assert len(hashes) == 1
    versus = by_policy["slowest"]["figures"]["answered_latency_p50_s"]["versus_baseline"]
    assert versus["pairs"] == 3 and versus["low"] <= versus["mean"] <= versus["high"]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5 and "least_loaded" in page and 'class="label modelled"' in page
    assert not re.search(r"<script|<link|<img|src=|href=\"http|@import|url\(http", page)
    folder = bundle.cell_folder(bundle.jobs()[0].cell)
    rows = parquet.read_table(folder / "outcomes.parquet")
    decisions = parquet.read_table(folder / "decisions.parquet")
    assert rows.num_rows == decisions.num_rows == requests[0]["5"]
    assert set(rows["request_id"].to_pylist()) == set(decisions["task_id"].to_pylist())
    met = sum(rows["met_deadline"].to_pylist())
    assert met == sum(decisions["met_deadline"].to_pylist())
    assert met / rows.num_rows == pytest.approx(by_policy["least_loaded"]["figures"]["attainment"]["values"]["5"])


def test_deliberately_bad_policies_come_out_worst(tmp_path):
    path = tmp_path / "busy.toml"
    path.write_text(SCENARIO.replace("RATE", "40"), encoding="utf-8")
    policies = ("least_loaded", "shortest_delay", "busiest", "slowest")
    bundle = Bundle.begin(tmp_path / "run", small(path, policies=policies, seeds=(1, 2, 3), bound=True))
    run(bundle)
    groups = {group.policy: group.figures for group in finish(bundle)}
    good, bad = ("least_loaded", "shortest_delay"), ("busiest", "slowest")
    for name, better in (("attainment", max), ("goodput_per_s", max), ("latency_p50_s", min)):
        worst_of_good = (min if better is max else max)(groups[policy][name].mean for policy in good)
        best_of_bad = better(groups[policy][name].mean for policy in bad)
        assert better(worst_of_good, best_of_bad) == worst_of_good != best_of_bad, name
    regret = {policy: figures["regret_bound"] for policy, figures in groups.items()}
    assert min(min(estimate.values.values()) for estimate in regret.values()) >= 0, "nobody beats the bound"
    assert set(groups) == {*policies, *REFERENCES}
    for reference, name in ((BEST_FIXED_ARM, "regret_fixed"), (ORACLE_SCHEDULE, "regret_oracle")):
        assert groups[reference][name].mean == 0
        for figures in groups.values():
            short = groups[reference]["attainment"].mean - figures["attainment"].mean
            assert figures[name].mean == pytest.approx(short)
    assert min(regret[policy].mean for policy in bad) > max(regret[policy].mean for policy in good)
    against = groups["slowest"]["attainment"].versus
    assert against is not None and against.distinguishable and against.mean < -0.1


def test_a_rerun_skips_what_is_done_and_goes_on_with_the_rest(scenario, tmp_path):
    folder = tmp_path / "run"
    bundle = Bundle.begin(folder, small(scenario))
    assert len(run(bundle)) == 4
    kept = bundle.cell_folder(bundle.jobs()[0].cell) / "result.json"
    before = kept.stat().st_mtime_ns
    wider = Bundle.begin(folder, small(scenario, seeds=(5, 6, 7)))
    shutil.rmtree(wider.cell_folder(wider.jobs()[3].cell))
    assert {job.cell.seed for job in pending(wider)} == {6, 7}
    assert len(run(wider)) == 3
    assert kept.stat().st_mtime_ns == before, "a finished cell is not touched"
    assert pending(wider) == []


async def test_a_folder_with_other_inputs_is_refused(scenario, tmp_path):
    Bundle.begin(tmp_path / "run", small(scenario))
    scenario.write_text(SCENARIO.replace("RATE", "2"), encoding="utf-8")
    status, _, err = await skyshore("compare", str(scenario), "--out", str(tmp_path / "run"))
    assert status == 1 and "other inputs" in err and "--out" in err


def kill_readers(fifo: Path, times: int) -> None:
    """Kill the worker that waits for the scenario in `fifo`, so many times; the next one finds an ordinary file."""
    text = fifo.with_name("small.toml").read_text(encoding="utf-8")
    for left in reversed(range(times)):
        while True:
            try:
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # nobody reads yet
                time.sleep(0.01)
        if not left:
            fifo.unlink()
            fifo.write_text(text, encoding="utf-8")
        # The workers are the children of the fork server, which is our child.
        (worker,) = (each for each in psutil.Process().children(recursive=True) if each.ppid() != os.getpid())
        worker.kill()
        worker.wait()
        os.close(writer)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_killed_worker_costs_its_cell_which_is_tried_once_more(scenario, tmp_path, deaths):
    fifo = tmp_path / "never.toml"
    os.mkfifo(fifo)
    jobs = [
        replace(job, cell=replace(job.cell, scenario=fifo))
        if (job.cell.policy, job.cell.seed) == ("random", 5)
        else job
        for job in small(scenario).jobs(scenario)
    ]
    killer = threading.Thread(target=kill_readers, args=(fifo, deaths))
    killer.start()
    events = list(sweep(jobs, lambda some, at: run_in_processes(some, at, 1), tmp_path / "scratch"))
    killer.join()
    failed = [event for event in events if isinstance(event, Failed)]
    assert len([event for event in events if isinstance(event, Finished)]) == (4 if deaths == 1 else 3)
    assert [(event.job.cell.policy, event.job.cell.seed) for event in failed] == [("random", 5)] * (deaths - 1)
    assert all("status -9" in event.reason for event in failed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_keeps_finished_cells_and_the_same_command_goes_on(tmp_path, number):
    path = tmp_path / "long.toml"
    path.write_text(SCENARIO.replace("RATE", "20").replace("duration_s = 20", "duration_s = 400"), encoding="utf-8")
    out = tmp_path / "run"
    words = ["compare", str(path), "--policies", "least_loaded", "--seeds", "40", "--jobs", "1", "--out", str(out)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    while not any(out.glob("cells/*/result.json")):
        assert child.returncode is None
        await asyncio.sleep(0.01)
    child.send_signal(number)
    text, err = await asyncio.wait_for(child.communicate(), 150)
    assert child.returncode == 130, err.decode()
    assert "INCOMPLETE" in text.decode()
    summary = json.loads((out / "summary.json").read_text())
    done = len(list(out.glob("cells/*/result.json")))
    assert summary["complete"] is False and len(summary["missing"]) == 40 - done > 0
    assert "Incomplete" in (out / "report.html").read_text()
    assert len(pending(Bundle.read(out))) == 40 - done


async def test_simulate_prints_figures_and_ctrl_c_leaves_a_valid_partial_result(scenario, tmp_path):
    status, text, err = await skyshore("simulate", str(scenario), "--policy", "cs_ucb", "--json")
    assert status == 0, err
    whole = json.loads(text)
    assert (whole["complete"], whole["policy"], whole["seed"]) == (True, "cs_ucb", 5)
    assert sum(whole["statuses"].values()) == whole["figures"]["requests"] > 50
    long = tmp_path / "long.toml"
    long.write_text(SCENARIO.replace("RATE", "20").replace("duration_s = 20", "duration_s = 3000"), encoding="utf-8")
    out = tmp_path / "run"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "simulate", str(long), "--json", "--out", str(out),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    # The first row group is on disk: it is in the midst of it.
    while not any(path.stat().st_size > 100_000 for path in out.glob(".part/*/decisions.parquet")):
        assert child.returncode is None
        await asyncio.sleep(0.01)
    child.send_signal(signal.SIGINT)
    said, err_bytes = await asyncio.wait_for(child.communicate(), 150)
    assert child.returncode == 130, err_bytes.decode()
    partial = json.loads(said)
    assert partial["complete"] is False
    assert sum(partial["statuses"].values()) == partial["figures"]["requests"]
    bundle = Bundle.read(out)
    rows = parquet.read_table(bundle.cell_folder(bundle.jobs()[0].cell) / "outcomes.parquet")
    assert 5_000 <= rows.num_rows == partial["figures"]["requests"] < 70_000


async def test_a_bundle_holds_when_run_again_and_not_when_touched(scenario, tmp_path):
    bundle = Bundle.begin(tmp_path / "run", small(scenario, rows=True, decisions=True))
    run(bundle)
    status, text, err = await skyshore("verify", str(bundle.folder), "--json")
    assert status == 0, err + text
    said = json.loads(text)
    assert (said["holds"], said["run_again"], said["findings"]) == (True, 4, [])
    result = bundle.cell_folder(bundle.jobs()[0].cell) / "result.json"
    content = json.loads(result.read_text())
    content["figures"]["joules"] *= 0.5
    result.write_text(json.dumps(content))
    status, text, _ = await skyshore("verify", str(bundle.folder))
    assert status == 1
    assert "changed after the bundle was sealed" in text and "joules was" in text


def test_a_tamperer_who_seals_again_is_found_by_the_rerun(scenario, tmp_path):
    bundle = Bundle.begin(tmp_path / "run", small(scenario, rows=True))
    run(bundle)
    folder = bundle.cell_folder(bundle.jobs()[0].cell)
    rows = parquet.read_table(folder / "outcomes.parquet")
    parquet.write_table(rows.slice(1), folder / "outcomes.parquet")
    finish(bundle)
    verdict = verify(
        bundle, lambda jobs, scratch: run_in_processes(jobs, scratch, 2), tmp_path / "again", lambda event: None
    )
    assert not verdict.holds
    assert [finding.what for finding in verdict.findings] == ["outcomes.parquet differs when run again"]


def test_a_changed_scenario_in_the_bundle_is_found(scenario, tmp_path):
    bundle = Bundle.begin(tmp_path / "run", small(scenario))
    run(bundle)
    bundle.scenario.write_text(SCENARIO.replace("RATE", "6"), encoding="utf-8")
    found = verify(
        Bundle.read(bundle.folder),
        lambda jobs, scratch: run_in_processes(jobs, scratch, 2),
        tmp_path / "again",
        lambda event: None,
    )
    said = [f"{finding.where}: {finding.what}" for finding in found.findings]
    assert "inputs: are not those that the experiment names" in said
    assert any("schedule_sha256 was" in line for line in said)


async def test_mistakes_are_one_sentence(scenario, tmp_path):
    for words, expected in (
        (("compare", str(scenario), "--policies", "least_loaded,nonsense"), "no policy 'nonsense'"),
        (("compare", str(scenario), "--driver", "dream"), "'dream' is not a valid Driver"),
        (("compare", str(scenario), "--baseline", "random"), "the baseline 'random' is not one of"),
        (("simulate", str(tmp_path / "none.toml")), "No such file"),
        (("verify", str(tmp_path / "none")), "not a run bundle"),
    ):
        status, out, err = await skyshore(*words, cwd=tmp_path)
        assert (status, out) == (1, ""), words
        assert err.startswith("skyshore: ") and expected in err and err.count("\n") == 1


def test_cells_of_a_pair_share_requests_whatever_the_policy(scenario):
    from experiments.plan.cell import plan

    one, other = (plan(Cell(scenario, policy, 3, 1.5)).schedule.sha256 for policy in ("random", "cs_ucb"))
    assert one == other != plan(Cell(scenario, "random", 4, 1.5)).schedule.sha256
