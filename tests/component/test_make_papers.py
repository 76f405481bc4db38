"""`make papers`, as small as it gets: one seed of short scenarios, from cells to the page."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.plan.bundle import Bundle
from experiments.plan.cell import CellResult, Driver
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from scripts import make_papers
from scripts.papers_page import NAMES, page, verdict
from skyshore.report.figures import FIGURES

PAPERS = Path(__file__).parents[2] / "scenarios" / "papers"


@pytest.fixture
def short_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenarios cut to a few seconds, and three policies."""
    for part in ("data", "profiles"):
        shutil.copytree(PAPERS / part, tmp_path / part)
    for file in PAPERS.glob("*.toml"):
        text = file.read_text(encoding="utf-8")
        length = next(line for line in text.splitlines() if line.startswith("duration_s"))
        (tmp_path / file.name).write_text(text.replace(length, "duration_s = 5"), encoding="utf-8")
    recipes = tuple(
        make_papers.Recipe(recipe.scenario, recipe.method, recipe.baselines[:1], (), (1.0,))
        for recipe in make_papers.RECIPES
    )
    monkeypatch.setattr(make_papers, "FOLDER", tmp_path)
    monkeypatch.setattr(make_papers, "RECIPES", recipes)
    monkeypatch.setattr(make_papers, "COMMON", ("least_loaded", "skyshore"))


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("short_papers")
def test_one_command_makes_figures_and_page(tmp_path: Path) -> None:
    out, figures, written = tmp_path / "out", tmp_path / "papers.json", tmp_path / "papers.md"
    given = ["--quick", "--jobs", "2", "--out", str(out), "--json", str(figures), "--page", str(written)]
    assert make_papers.main(given) == 0
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert [found["scenario"] for found in content["scenarios"]] == ["perllm", "perllm-fluctuating", "cdio"]
    text = written.read_text(encoding="utf-8")
    for found in content["scenarios"]:
        (at_load,) = found["loads"]
        assert at_load["bound"]["mean"] <= 1
        assert at_load["seeds"] == [4001, 4002]
        assert {"skyshore", "best_fixed_arm", "oracle_schedule"} < {row["policy"] for row in at_load["policies"]}
        for row in at_load["policies"]:
            served = row["figures"]
            assert served["attainment"]["mean"] <= at_load["bound"]["mean"] + 1e-6
            short = at_load["bound"]["mean"] - served["attainment"]["mean"]
            assert served["regret_bound"]["mean"] == pytest.approx(short, abs=1e-5)
            name = NAMES.get(row["policy"], f"`{row['policy']}`")
            assert f"| {name} | {100 * served['attainment']['mean']:.1f}" in text
        assert set(at_load["skyshore_over"]) & {"least_loaded", "cs_ucb"}
    assert page(content) == text
    # One cell gone: the seed it belonged to is no pair any more, and is left out.
    shutil.rmtree(next((out / "cdio" / "cells").glob("skyshore.seed4002.*")))
    assert make_papers.main([*given[1:], "--gather"]) == 0
    found = json.loads(figures.read_text(encoding="utf-8"))["scenarios"]
    assert [each["loads"][0]["seeds"] for each in found] == [[4001, 4002], [4001, 4002], [4001]]


def test_a_live_run_that_did_not_keep_its_schedule_is_left_out_with_its_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = Inputs.read(PAPERS / "perllm-live.toml")
    policies, seeds = ("skyshore", "least_loaded"), (1, 2, 3)
    experiment = Experiment(inputs, policies, seeds, drivers=(Driver.LIVE,), rows=False)
    bundle = Bundle.begin(tmp_path / "live", experiment)
    for job in bundle.jobs():
        late = job.cell.seed == 2 and job.cell.policy == "skyshore"
        result = CellResult(
            cell=job.cell,
            figures={**dict.fromkeys(FIGURES), "requests": 80, "attainment": 0.1 * job.cell.seed},
            by_class={},
            statuses={},
            energy_sources=(),
            provenance="emulated",
            schedule_sha256="",
            decisions_sha256="",
            complete=True,
            duration_s=15.0,
            notes=("INVALID: the schedule was not kept",) if late else (),
        )
        bundle.cell_folder(job.cell).mkdir()
        written = json.dumps({**job.marks, **result.to_json()})
        (bundle.cell_folder(job.cell) / "result.json").write_text(written, encoding="utf-8")
    monkeypatch.setattr(make_papers, "met_bound", lambda planned: 0.5 * len(planned.schedule.arrivals))
    found = make_papers.live(bundle.folder)
    assert (found["seeds"], found["runs"], found["invalid"], found["kept"]) == ([1, 3], 6, 1, 4)
    for row in found["policies"]:
        assert row["figures"]["attainment"]["mean"] == pytest.approx(0.2)
        assert row["figures"]["regret_bound"]["mean"] == pytest.approx(0.3)


def test_a_shortfall_is_said() -> None:
    ratio = {"mean": 0.95, "low": 0.9, "high": 1.0}
    more = {"mean": 0.02, "low": 0.0, "high": 0.04}
    behind = {"mean": 0.05, "low": 0.04, "high": 0.06}
    short = {"figures": {"regret_bound": behind, "regret_oracle": behind}, "policy": "skyshore"}
    at_load = {
        "skyshore_over": {"cs_ucb": {"fleet_joules_per_met": ratio, "attainment_difference": more}},
        "policies": [short],
    }
    said = verdict(at_load)
    assert "5.0 % fewer" in said
    assert "**short of the 10 %" in said
    assert "not within 3" in said
