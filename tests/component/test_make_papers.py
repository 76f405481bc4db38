"""`make papers`, as small as it gets: one seed of short scenarios, from cells to the page."""

import json
import shutil
from pathlib import Path

import pytest

from scripts import make_papers
from scripts.papers_page import page, verdict

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
        for row in at_load["policies"]:
            assert row["seeds"] == 2
            assert row["figures"]["attainment"]["mean"] <= at_load["bound"]["mean"] + 1e-6
            assert f"| `{row['policy']}` | {100 * row['figures']['attainment']['mean']:.1f}" in text
        assert set(at_load["skyshore_over"]) & {"least_loaded", "cs_ucb"}
    assert page(content) == text


def test_a_shortfall_is_said() -> None:
    ratio = {"mean": 0.95, "low": 0.9, "high": 1.0}
    more = {"mean": 0.02, "low": 0.0, "high": 0.04}
    short = {"figures": {"short_of_bound": {"mean": 0.05, "low": 0.04, "high": 0.06}}, "policy": "skyshore"}
    at_load = {
        "skyshore_over": {"cs_ucb": {"fleet_joules_per_met": ratio, "attainment_difference": more}},
        "policies": [short],
    }
    said = verdict(at_load)
    assert "5.0 % fewer" in said
    assert "**short of the 10 %" in said
    assert "not within 3" in said
