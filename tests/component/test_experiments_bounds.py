"""The clairvoyant bound of a cell: nothing beats it, and it says when a fleet is too small."""

from pathlib import Path

import pytest

from experiments.plan.cell import Cell, plan
from experiments.run.bounds import met_bound
from experiments.run.simulated import run_simulated

PAPERS = Path(__file__).parents[2] / "scenarios" / "papers"


@pytest.mark.parametrize(
    ("scenario", "load"), [("perllm", 0.3), ("perllm", 2.0), ("perllm-fluctuating", 1.0), ("cdio", 0.3), ("cdio", 1.0)]
)
@pytest.mark.parametrize("policy", ["skyshore", "shortest_delay"])
def test_no_policy_beats_the_bound(tmp_path, scenario, load, policy):
    cell = Cell(shortened(tmp_path, scenario), policy, 3, load)
    figures = run_simulated(cell).figures
    bound = met_bound(plan(cell))
    assert figures["attainment"] * figures["requests"] <= bound + 1e-6
    assert bound <= figures["requests"]


def test_the_bound_falls_where_there_is_too_much_work(tmp_path):
    def share(load: float) -> float:
        planned = plan(Cell(shortened(tmp_path, "perllm"), "random", 3, load))
        return met_bound(planned) / len(planned.schedule.arrivals)

    assert share(0.5) > 0.94
    assert share(8.0) < 0.7


def shortened(folder: Path, name: str) -> Path:
    """The paper's scenario, 20 s long, with what it names beside it."""
    for part in ("data", "profiles"):
        if not (folder / part).exists():
            (folder / part).symlink_to(PAPERS / part)
    text = (PAPERS / f"{name}.toml").read_text(encoding="utf-8")
    length = next(line for line in text.splitlines() if line.startswith("duration_s"))
    (folder / f"{name}.toml").write_text(text.replace(length, "duration_s = 20"), encoding="utf-8")
    return folder / f"{name}.toml"
