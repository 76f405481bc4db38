"""What is fitted to a run is what the run was made of, and simulation takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.fit.calibrate import ENGINE, calibrate, fit_nodes
from experiments.plan.cell import Cell
from experiments.run.simulated import run_simulated
from skyshore.domain.errors import InvalidTask
from skyshore.domain.outcome import OutcomeStatus
from skyshore.nodemodel.calibration import (
    Calibration,
    Overheads,
    calibration_from_document,
    calibration_to_document,
)
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile
from skyshore.report.request_record import RequestRecord
from skyshore.scenario import Scenario, read_scenario
from skyshore.scenario.files import profile_of

TRUE = LlmSpeed(
    "chat:int4",
    "modelled:test",
    iteration_s=0.007,
    prefill_token_s=6e-4,
    row_s=0.003,
    slots=6,
    queue=200,
    busy_watts=80.0,
    stall_ratio=ENGINE.stall_ratio,
    chunk_tokens=ENGINE.prefill_chunk_tokens,
)
SCENARIO = """
{calibration}
name = "one"
duration_s = {seconds}
[[nodes]]
id = "edge"
count = {count}
tier = "edge"
engine = "{engine}"
profile = "node.json"
slots = 6
[[links]]
nodes = "edge"
up = {{ delay_ms = 10 }}
down = {{ delay_ms = 10 }}
[[workload.llm]]
rate_per_s = 2.5
prompt_tokens = 100
output_tokens = 20
"""


def document(speed: LlmSpeed) -> str:
    profile = NodeProfile("node", "modelled:test", 10.0, (speed,))
    return json.dumps(calibration_to_document(Calibration("x", nodes={"n": profile}))["nodes"]["n"])


def scenario(
    folder: Path, *, speed: LlmSpeed = TRUE, engine: str = "onnx", calibration: str = "", count: int = 1
) -> Path:
    (folder / "node.json").write_text(document(speed))
    path = folder / "s.toml"
    named = f'calibration = "{calibration}"' if calibration else ""
    path.write_text(SCENARIO.format(calibration=named, engine=engine, count=count, seconds=90))
    return path


def lived(path: Path, seed: int = 1, *, late_s: float = 0.0) -> list[RequestRecord]:
    """Rows as a live run of the scenario would give them, `late_s` later at the client."""
    rows: list[RequestRecord] = []
    run_simulated(Cell(path, "least_loaded", seed), on_record=rows.append)
    return [later(row, late_s) for row in rows if row.answered]


def later(record: RequestRecord, late_s: float) -> RequestRecord:
    seen = record.outcome
    return replace(record, outcome=replace(seen, latency_s=seen.latency_s + late_s, ttft_s=seen.ttft_s + late_s))


def parsed(path: Path) -> Scenario:
    return read_scenario(path.read_text())


def test_the_iteration_times_of_every_batch_are_found_within_four_percent(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    rows = lived(path)
    stated = NodeProfile("x", "modelled:wrong", 1.0, (replace(TRUE, iteration_s=9.0, row_s=9.0, prefill_token_s=9.0),))
    nodes, contention = fit_nodes(rows, {"edge": stated}, "measured: test")
    fitted = nodes["edge"]
    (speed,) = fitted.llm
    assert contention == 0.0, "a node by itself is held up by nobody"
    for batch in (1, 2, 4, 6):
        assert speed.iteration_time_s(0, batch) == pytest.approx(TRUE.iteration_time_s(0, batch), rel=0.04)
    assert speed.iteration_time_s(100, 0) == pytest.approx(TRUE.iteration_time_s(100, 0), rel=0.04)
    assert fitted.idle_watts == pytest.approx(10.0, rel=0.02)
    assert speed.busy_watts == pytest.approx(80.0, rel=0.02)
    assert "measured" in speed.source


def test_nodes_that_hold_each_other_up_differ_from_slow_ones(tmp_path: Path) -> None:
    """Known truth: two engines on one machine, each half as slow again while the other one works."""
    true = replace(TRUE, row_multiple=2)
    profile = NodeProfile("node", "modelled:test", 10.0, (true,))
    truth = Calibration("x", nodes={"edge-1": profile, "edge-2": profile}, contention=0.5)
    (tmp_path / "truth.json").write_text(json.dumps(calibration_to_document(truth)))
    path = scenario(tmp_path, calibration="truth.json", count=2)
    found = calibrate(lived(path), parsed(path), tmp_path, "measured: test")
    assert found.contention == pytest.approx(0.5, abs=0.1)
    for node in found.nodes.values():
        assert node.llm[0].row_multiple == 2
        assert node.llm[0].iteration_time_s(0, 1) == pytest.approx(true.iteration_time_s(0, 1), rel=0.1)
        assert node.llm[0].iteration_time_s(100, 0) == pytest.approx(true.iteration_time_s(100, 0), rel=0.1)

    then, figures = lived(path, seed=2), {}
    for name, nodes in (("calibrated", found), ("alone", replace(found, contention=0.0))):
        (tmp_path / f"{name}.json").write_text(json.dumps(calibration_to_document(nodes)))
        figures[name] = run_simulated(Cell(scenario(tmp_path, calibration=f"{name}.json", count=2), "least_loaded", 2))
    p50, p95 = (float(np.quantile([row.latency_s for row in then], share)) for share in (0.5, 0.95))
    assert figures["calibrated"].figures["latency_p50_s"] == pytest.approx(p50, rel=0.05)
    assert figures["calibrated"].figures["latency_p95_s"] == pytest.approx(p95, rel=0.1)
    assert (figures["alone"].figures["latency_p95_s"] or 0.0) < 0.85 * p95, "without contention it is too fast"


def test_the_spread_of_the_overheads_reaches_the_tail_of_the_prediction(tmp_path: Path) -> None:
    """Known truth: one answer in five is 200 ms late on its way. A median knows nothing of that."""
    path = scenario(tmp_path, engine="emulated")
    rows = [later(row, 0.2) if number % 5 == 0 else row for number, row in enumerate(lived(path))]
    found = calibrate(rows, parsed(path), tmp_path, "measured: test")
    assert found.overheads.request_s < 0.01
    tails = {}
    for name, overheads in (
        ("drawn", found.overheads),
        ("median", Overheads(found.overheads.gateway_s, found.overheads.request_s)),
    ):
        document = calibration_to_document(replace(found, overheads=overheads))
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        calibrated = scenario(tmp_path, engine="emulated", calibration=f"{name}.json")
        figures = [run_simulated(Cell(calibrated, "least_loaded", 1), chance=draw).figures for draw in range(4)]
        tails[name] = sum(each["ttft_p95_s"] or 0.0 for each in figures) / len(figures)
    p95 = float(np.quantile([row.ttft_s or 0.0 for row in rows], 0.95))
    assert tails["drawn"] == pytest.approx(p95, rel=0.15)
    assert tails["median"] < tails["drawn"] - 0.05


def test_a_simulation_with_the_calibration_predicts_another_run(tmp_path: Path) -> None:
    """Known truth: the live run is a simulation of other nodes than the scenario states."""
    truth = tmp_path / "truth"
    truth.mkdir()
    real = scenario(truth)
    found = calibrate(lived(real, seed=1, late_s=0.05), parsed(real), truth, "measured: test")
    guessed = replace(TRUE, iteration_s=0.002, row_s=0.0, prefill_token_s=1e-5)
    (tmp_path / "fitted.json").write_text(json.dumps(calibration_to_document(found)))
    plain = run_simulated(Cell(scenario(tmp_path, speed=guessed), "least_loaded", 2)).figures
    calibrated = run_simulated(
        Cell(scenario(tmp_path, speed=guessed, calibration="fitted.json"), "least_loaded", 2)
    ).figures
    then = lived(real, seed=2, late_s=0.05)
    p50 = sorted(row.latency_s for row in then)[len(then) // 2]
    ttft = sorted(row.ttft_s or 0.0 for row in then)[len(then) // 2]
    joules = sum(row.joules for row in then)
    assert calibrated["latency_p50_s"] == pytest.approx(p50, rel=0.05)
    assert calibrated["ttft_p50_s"] == pytest.approx(ttft, rel=0.05)
    assert calibrated["joules"] == pytest.approx(joules, rel=0.05)
    assert abs((plain["latency_p50_s"] or 0.0) / p50 - 1) > 0.3, "without it the prediction is far off"


def test_an_emulated_node_keeps_the_profile_that_it_emulates(tmp_path: Path) -> None:
    path = scenario(tmp_path, engine="emulated")
    found = calibrate(lived(path, late_s=0.03), parsed(path), tmp_path, "measured: test")
    assert found.nodes == {}
    assert found.overheads.request_s == pytest.approx(0.03, abs=0.002)
    assert found.overheads.gateway_s == pytest.approx(0.003)


def test_a_node_that_answered_little_keeps_what_is_stated(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    found = calibrate(lived(path)[:5], parsed(path), tmp_path, "measured: test")
    assert found.nodes["edge"].llm[0].iteration_s == TRUE.iteration_s
    with pytest.raises(InvalidTask, match="no answers"):
        failed = [replace(row, outcome=replace(row.outcome, status=OutcomeStatus.FAILED)) for row in lived(path)]
        calibrate(failed, parsed(path), tmp_path, "measured: test")


def test_a_calibration_is_read_as_it_was_written_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    profile = profile_of(parsed(path).nodes[0], tmp_path)
    whole = Calibration("measured: x", Overheads(0.004, 0.02, (0.003, 0.005), (0.01, 0.03)), {"edge": profile}, 0.25)
    assert calibration_from_document(json.loads(json.dumps(calibration_to_document(whole)))) == whole
    one_sided = {
        **calibration_to_document(whole),
        "overheads": {"gateway_s": 1, "request_s": 1, "request_spread_s": [1]},
    }
    for damage in ({}, {"calibration": 1}, {**calibration_to_document(whole), "nodes": 3}, one_sided):
        with pytest.raises(ProfileError):
            calibration_from_document(damage)
