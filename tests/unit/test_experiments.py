"""Cells are paired, figures count what they say, tables and charts stand on them, inputs travel whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install -e '.[sim]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[sim]'")

from pyarrow import parquet

from experiments.figures.comparison import compare
from experiments.figures.curves import BINS, CurveTally, RequestTimeline
from experiments.figures.decision_table import DecisionWriter
from experiments.figures.outcome_table import SCHEMA, OutcomeWriter, read_records
from experiments.plan.bundle import Bundle
from experiments.plan.cell import BEST_FIXED_ARM, ORACLE_SCHEDULE, Cell, CellResult, Driver, at_load
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.report.tables import comparison_tables, figure_text
from skyshore.domain.errors import NotFound
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind
from skyshore.report.figures import FIGURES, FigureTally
from skyshore.report.request_record import RequestRecord
from skyshore.report.statistics import percentile
from skyshore.scenario import read_scenario
from skyshore.scenario.workload import make_schedule

DEMO = Path(__file__).parents[2] / "scenarios" / "demo.toml"


def row(index: int = 0, latency_s: float | None = 1.0, **fields: Any) -> RequestRecord:
    answered = latency_s is not None
    of_outcome = {name: fields.pop(name) for name in ("status", "quality", "arm_id") if name in fields}
    outcome = Outcome(
        **{
            "task_id": f"r{index}",
            "arm_id": "edge-1/m",
            "node_id": "edge-1",
            "status": OutcomeStatus.OK if answered else OutcomeStatus.FAILED,
            "finished_at_s": float(index),
            "latency_s": latency_s if answered else 0.7,
            "deadline_s": 2.0,
            "ttft_s": latency_s / 2 if answered else 0.0,
            "up_bytes": 100,
            "down_bytes": 50,
            "transmission_joules": 1.0,
            "quality": 0.6,
            "service_class": "interactive",
            "worker": WorkerOutcome(
                output_tokens=10,
                inference_joules=2.0 if answered else 0.0,
                idle_joules=3.0 if answered else 0.0,
                energy_source="modelled:test",
            ),
            **of_outcome,
        }
    )
    made = RequestRecord(f"r{index}", TaskKind.LLM, "interactive", "", float(index), 2.0, 0.5, outcome, "edge")
    return replace(made, **fields)


def tallied(*rows: RequestRecord) -> dict[str, float | None]:
    tally = FigureTally()
    for each in rows:
        tally(each)
    return tally.figures(10.0)


def test_figures_of_a_small_run_by_hand() -> None:
    figures = tallied(row(0, 1.0), row(1, 3.0), row(2, None), row(3, 0.5, quality=0.4, tier="cloud"))
    assert set(figures) == set(FIGURES)
    expected = {
        "requests": 4,
        "answered": 3,
        "attainment": 0.5,
        "goodput_per_s": 0.2,
        "output_tokens_per_s": 3.0,
        "transmission_joules": 4.0,
        "inference_joules": 6.0,
        "idle_joules": 9.0,
        "joules_per_met": 9.5,
        "link_bytes": 600,
        "quality": pytest.approx(1.6 / 3),
        "quality_violations": 1,
        "failed": 1,
        "edge_share": pytest.approx(2 / 3),
    }
    assert {name: figures[name] for name in expected} == expected
    assert figures["fleet_joules"] is None, "what is not known is not zero"


def test_a_cancelled_request_is_nobodys_failure() -> None:
    assert tallied(row(0), row(1, None, status=OutcomeStatus.CANCELLED))["attainment"] == 1.0


latencies = st.lists(st.none() | st.floats(1e-3, 1e3), min_size=1, max_size=60)


@given(latencies)
def test_percentiles_count_a_failure_as_infinitely_late(values: list[float | None]) -> None:
    figures = tallied(*(row(index, value) for index, value in enumerate(values)))
    for q in (50, 95, 99):
        exact = percentile([math.inf if value is None else value for value in values], q)
        found = figures[f"latency_p{q}_s"]
        assert found == exact if math.isinf(exact) else found == pytest.approx(exact, rel=0.0051)


def test_load_scales_the_work_and_nothing_else() -> None:
    scenario = read_scenario(DEMO.read_text())
    for load in (0.5, 0.75, 1.5, 3.0):
        scaled = at_load(scenario, load)
        assert scaled.workload.llm[0].rate_per_s == pytest.approx(load * scenario.workload.llm[0].rate_per_s)
        one, other = scenario.workload.cameras[0], scaled.workload.cameras[0]
        assert other.count * other.fps == pytest.approx(load * one.count * one.fps)
        assert scaled.model_copy(update={"workload": scenario.workload}) == scenario
    assert make_schedule(at_load(scenario, 1.0)).sha256 == make_schedule(scenario).sha256


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 60), st.booleans()), max_size=80))
def test_a_timeline_loses_no_request_and_keeps_its_size(requests: list[tuple[float, float, bool]]) -> None:
    timeline = RequestTimeline()
    for due_s, lasts_s, met in requests:
        timeline.add(due_s, due_s + lasts_s, met)
    content = timeline.to_json()
    assert sum(content["due"]) == len(requests)
    assert sum(content["met"]) == sum(met for _, _, met in requests)
    assert len(content["due"]) <= BINS
    assert min(content["inside"], default=0) >= 0 and (content["inside"] or [0])[-1] == 0


def test_curves_name_where_requests_went() -> None:
    curves = CurveTally()
    for each in (row(0), row(1), row(2, None, arm_id="", tier="")):
        curves(each)
    content = curves.to_json()
    assert (content["requests"], content["answered"]) == (3, 2)
    assert content["places"] == {"edge-1/m": 2, "refused": 1}


def test_rows_come_back_as_they_went_in_whatever_the_size_of_a_group(tmp_path: Path) -> None:
    rows = [row(index, None if index % 3 == 0 else 0.1 * index) for index in range(25)]
    with OutcomeWriter(tmp_path / "o.parquet", rows_in_group=10) as writer:
        for each in rows:
            writer(each)
    assert parquet.ParquetFile(tmp_path / "o.parquet").num_row_groups == 3
    table = parquet.read_table(tmp_path / "o.parquet")
    assert table.schema == SCHEMA
    read = read_records(tmp_path / "o.parquet")
    assert [each.to_row() for each in read] == [each.to_row() for each in rows]


def test_a_decision_is_written_with_its_outcome_and_one_that_was_taken_back_without(tmp_path: Path) -> None:
    def decision(task_id: str, chosen: str) -> DecisionRecord:
        return DecisionRecord(task_id, 1.0, "p", "interactive", chosen, 0.5, ("a", "b"), (1.0, math.inf))

    with DecisionWriter(tmp_path / "d.parquet", rows_in_group=2) as writer:
        writer.decided(decision("r0", "a"))
        writer.decided(decision("r1", "a"))
        writer.decided(decision("r1", "b"))  # its node died
        writer.ended(row(1, 0.7))
        writer.decided(decision("r2", "a"))  # still open at the end
        writer.ended(row(0))
    rows = parquet.read_table(tmp_path / "d.parquet").to_pylist()
    assert [(each["task_id"], each["chosen"], each["latency_s"]) for each in rows] == [
        ("r1", "a", None),
        ("r1", "b", 0.7),
        ("r0", "a", 1.0),
        ("r2", "a", None),
    ]
    assert rows[1]["joules"] == 6.0 and rows[1]["scores"] == [1.0, math.inf]


def result(policy: str, seed: int, **figures: float | None) -> CellResult:
    cell = Cell(Path("s.toml"), policy, seed)
    return CellResult(cell, figures, {}, {}, (), "modelled", "s", "d", complete=True, duration_s=1.0)


def test_a_comparison_pairs_by_seed_and_says_what_it_cannot_tell() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(10, 3, 8)
    results = [result("base", seed, joules=hard[seed], attainment=0.9) for seed in range(8)]
    results += [result("cheap", seed, joules=hard[seed] - 1, attainment=0.9) for seed in reversed(range(8))]
    results += [result("few", seed, joules=hard[seed] + rng.normal(0, 1)) for seed in range(3)]
    base, cheap, few = compare(results, ("base", "cheap", "few"), "base")
    assert base.figures["joules"].versus is None
    versus = cheap.figures["joules"].versus
    assert versus is not None and versus.pairs == 8 and versus.distinguishable
    assert versus.mean == pytest.approx(-1)
    assert few.figures["joules"].versus is not None and few.figures["joules"].versus.pairs == 3
    assert "attainment" not in few.figures, "a figure that was not measured is left out"
    figures, differences = comparison_tables([base, cheap, few], "base")
    assert figures.columns == ("", "base", "cheap", "few")
    assert differences.rows[0] == ("deadlines met", "+0.0 pt ≈", "–")


def test_regret_is_against_the_same_requests_and_is_not_told_twice() -> None:
    met = {"ours": (0.8, 0.6), BEST_FIXED_ARM: (0.5, 0.7), ORACLE_SCHEDULE: (0.9, 0.9)}
    results = [
        result(policy, seed, attainment=share, requests=10, met_bound=9.5 if policy == ORACLE_SCHEDULE else None)
        for policy, shares in met.items()
        for seed, share in enumerate(shares)
    ]
    groups = compare(results, tuple(met), "ours")
    ours = groups[0].figures
    assert ours["regret_fixed"].values == pytest.approx({0: -0.3, 1: 0.1})
    assert ours["regret_oracle"].values == pytest.approx({0: 0.1, 1: 0.3})
    assert ours["regret_bound"].values == pytest.approx({0: 0.15, 1: 0.35})
    figures, differences = comparison_tables(groups, "ours")
    assert figures.columns == ("", "ours", "best fixed arm", "oracle schedule")
    shown = {row[0]: row[1] for row in figures.rows}
    assert shown["regret: bound"].startswith("25.0% ±") and shown["regret: bound"].endswith(" pt")
    assert "not policies" in figures.note
    assert not [row for row in differences.rows if row[0].startswith("regret")]


def test_infinite_figures_survive_the_way_through_json() -> None:
    before = result("p", 1, latency_p95_s=math.inf, joules=1.5, quality=None)
    content = before.to_json()
    assert content["figures"] == {"latency_p95_s": "inf", "joules": 1.5, "quality": None}
    assert CellResult.from_json(before.cell, content) == before
    assert figure_text("latency_p95_s", math.inf) == "∞"


def test_a_bundle_of_an_earlier_version_is_read_under_the_present_names(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, Experiment(Inputs.read(DEMO), ("least_loaded",), (1,), bound=True))
    former = tmp_path / "cells" / "foresight.seed1.load1.sim"
    former.mkdir(parents=True)
    content = result("foresight", 1, attainment=0.9, regret_foresight=None).to_json()
    (former / "result.json").write_text(json.dumps(content), encoding="utf-8")
    found = bundle.result(Cell(bundle.scenario, ORACLE_SCHEDULE, 1))
    assert found is not None and found.figures == {"attainment": 0.9, "regret_oracle": None}


def test_the_name_of_a_cell_is_unique() -> None:
    cells = [
        Cell(Path("s"), policy, seed, load, driver)
        for policy in ("a", "a.b")
        for seed in (1, 11)
        for load in (1.0, 1.5)
        for driver in Driver
    ]
    assert len({cell.name for cell in cells}) == len(cells)


def test_inputs_hold_every_file_a_scenario_names(tmp_path: Path) -> None:
    home = tmp_path / "scenarios"
    (tmp_path / "traces").mkdir()
    home.mkdir()
    (tmp_path / "traces" / "up.txt").write_text("0 10\n1 5\n")
    text = DEMO.read_text().replace("delay_ms = 20, jitter_ms = 2 }\ndown", 'trace = "../traces/up.txt" }\ndown')
    (home / "s.toml").write_text(text)
    inputs = Inputs.read(home / "s.toml")
    assert set(inputs.files) == {"scenarios/s.toml", "traces/up.txt"}
    place = inputs.write(tmp_path / "copy")
    assert Inputs.read(place).sha256 == inputs.sha256 == Inputs.load(tmp_path / "copy", "scenarios/s.toml").sha256
    (tmp_path / "copy" / "traces" / "up.txt").write_text("0 11\n")
    assert Inputs.read(place).sha256 != inputs.sha256
    with pytest.raises(NotFound, match="No such file"):
        Inputs.read(tmp_path / "none.toml")
