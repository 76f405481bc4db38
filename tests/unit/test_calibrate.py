"""What is fitted to a run is what the run was made of, and simulation takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.calibrate import calibrate, fit_node
from experiments.cell import Cell
from experiments.outcome_table import OutcomeRow
from experiments.simulated import run_simulated
from simulator.build import profile_of
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
from skyshore.scenario import Scenario, read_scenario

TRUE = LlmSpeed(
    "chat:int4",
    "modelled:test",
    iteration_s=0.025,
    prefill_token_s=3e-4,
    row_s=0.005,
    slots=6,
    queue=200,
    busy_watts=80.0,
)
SCENARIO = """
{calibration}
name = "one"
duration_s = {seconds}
[[nodes]]
id = "edge"
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
prompt_tokens = 150
output_tokens = 20
"""


def document(speed: LlmSpeed) -> str:
    profile = NodeProfile("node", "modelled:test", 10.0, (speed,))
    return json.dumps(calibration_to_document(Calibration("x", nodes={"n": profile}))["nodes"]["n"])


def scenario(folder: Path, *, speed: LlmSpeed = TRUE, engine: str = "onnx", calibration: str = "") -> Path:
    (folder / "node.json").write_text(document(speed))
    path = folder / "s.toml"
    named = f'calibration = "{calibration}"' if calibration else ""
    path.write_text(SCENARIO.format(calibration=named, engine=engine, seconds=90))
    return path


def lived(path: Path, seed: int = 1, *, late_s: float = 0.0) -> list[OutcomeRow]:
    """Rows as a live run of the scenario would give them, `late_s` later at the client."""
    rows: list[OutcomeRow] = []
    run_simulated(Cell(path, "least_loaded", seed), on_row=rows.append)
    return [
        replace(row, latency_s=row.latency_s + late_s, ttft_s=row.ttft_s + late_s)
        for row in rows
        if row.latency_s is not None and row.ttft_s is not None
    ]


def parsed(path: Path) -> Scenario:
    return read_scenario(path.read_text())


def test_the_iteration_times_of_every_batch_are_found_within_four_percent(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    rows = lived(path)
    stated = NodeProfile("x", "modelled:wrong", 1.0, (replace(TRUE, iteration_s=9.0, row_s=9.0, prefill_token_s=9.0),))
    fitted = fit_node(rows, stated, "measured: test")
    (speed,) = fitted.llm
    for batch in (1, 2, 4, 6):
        assert speed.iteration_time_s(0, batch) == pytest.approx(TRUE.iteration_time_s(0, batch), rel=0.04)
    assert speed.iteration_time_s(150, 0) == pytest.approx(TRUE.iteration_time_s(150, 0), rel=0.04)
    assert fitted.idle_watts == pytest.approx(10.0, rel=0.02)
    assert speed.busy_watts == pytest.approx(80.0, rel=0.02)
    assert "measured" in speed.source


def test_a_simulation_with_the_calibration_predicts_another_run(tmp_path: Path) -> None:
    """Known truth: the live run is a simulation of other nodes than the scenario states."""
    truth = tmp_path / "truth"
    truth.mkdir()
    real = scenario(truth)
    found = calibrate(lived(real, seed=1, late_s=0.05), parsed(real), truth, "measured: test")
    guessed = replace(TRUE, iteration_s=0.004, row_s=0.0, prefill_token_s=1e-5)
    (tmp_path / "fitted.json").write_text(json.dumps(calibration_to_document(found)))
    plain = run_simulated(Cell(scenario(tmp_path, speed=guessed), "least_loaded", 2)).figures
    told = run_simulated(Cell(scenario(tmp_path, speed=guessed, calibration="fitted.json"), "least_loaded", 2)).figures
    then = lived(real, seed=2, late_s=0.05)
    p50 = sorted(row.latency_s or 0.0 for row in then)[len(then) // 2]
    ttft = sorted(row.ttft_s or 0.0 for row in then)[len(then) // 2]
    joules = sum(row.joules for row in then)
    assert told["latency_p50_s"] == pytest.approx(p50, rel=0.05)
    assert told["ttft_p50_s"] == pytest.approx(ttft, rel=0.05)
    assert told["joules"] == pytest.approx(joules, rel=0.05)
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
        calibrate(
            [replace(row, status=OutcomeStatus.FAILED) for row in lived(path)], parsed(path), tmp_path, "measured: test"
        )


def test_a_calibration_is_read_as_it_was_written_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    profile = profile_of(parsed(path).nodes[0], tmp_path)
    whole = Calibration("measured: x", Overheads(0.004, 0.02), {"edge": profile})
    assert calibration_from_document(json.loads(json.dumps(calibration_to_document(whole)))) == whole
    for damage in ({}, {"calibration": 1}, {**calibration_to_document(whole), "nodes": 3}):
        with pytest.raises(ProfileError):
            calibration_from_document(damage)
