"""A node that joins while a run goes on is used soon and sensibly, by every policy that learns."""

from pathlib import Path

import pytest

from experiments.plan.cell import Cell
from experiments.run.simulated import run_simulated
from skyshore.report.request_record import RequestRecord

SCENARIO = """
name = "joining"
duration_s = 60

[[nodes]]
id = "old"
tier = "edge"
profile = "t4"
slowdown = 40

[[nodes]]
id = "new"
tier = "edge"
profile = "t4"

[[workload.llm]]
rate_per_s = 12

[[faults]]
at_s = 0
kind = "crash"
node = "new"
for_s = 30
"""


@pytest.mark.parametrize("policy", ["skyshore", "cs_ucb", "linucb", "primal_dual", "cdio"])
def test_a_node_that_joins_late_gets_work_and_keeps_deadlines(policy: str, tmp_path: Path) -> None:
    rows: list[RequestRecord] = []
    (tmp_path / "joining.toml").write_text(SCENARIO, encoding="utf-8")
    run_simulated(Cell(tmp_path / "joining.toml", policy, 5), on_record=rows.append)
    late = [row for row in rows if row.t_intended_s > 40]
    assert any(row.outcome.node_id == "new" for row in late)
    assert not any(row.outcome.node_id == "new" for row in rows if 4 < row.t_intended_s < 25)
    assert sum(row.met_deadline for row in late) > 0.9 * len(late)
