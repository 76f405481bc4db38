"""Errors of predictions, and which of them count."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.plan.cell import Cell, CellResult, Driver
from experiments.report.fidelity import fidelity


def result(driver: Driver, latency_s: float, *notes: str, seed: int = 1, load: float = 0.5) -> CellResult:
    return CellResult(
        cell=Cell(Path("s.toml"), "least_loaded", seed, load, driver),
        figures={"latency_p50_s": latency_s, "joules": 100.0, "latency_p99_s": math.inf, "edge_share": None},
        by_class={},
        statuses={},
        energy_sources=(),
        provenance="modelled" if driver is Driver.SIM else "emulated",
        schedule_sha256="",
        decisions_sha256="",
        complete=True,
        duration_s=1.0,
        notes=notes,
    )


def test_the_error_is_against_the_mean_of_the_live_runs_and_beside_it_their_spread() -> None:
    (judged,) = fidelity([result(Driver.SIM, 1.1), result(Driver.LIVE, 0.9), result(Driver.LIVE, 1.1)])
    (latency,) = [each for each in judged.errors if each.name == "latency_p50_s"]
    assert latency.live == pytest.approx(1.0)
    assert latency.error == pytest.approx(0.10)
    assert latency.spread == pytest.approx(0.10)
    assert latency.within(0.05), "no further off than live runs are from one another"
    assert {each.name for each in judged.errors} == {"latency_p50_s", "joules"}, "infinite and missing figures are out"
    assert (judged.runs, judged.provenance) == (2, "emulated")


def test_one_live_run_has_no_spread_and_excuses_nothing() -> None:
    (judged,) = fidelity([result(Driver.SIM, 1.1), result(Driver.LIVE, 1.0)])
    latency = judged.errors[0]
    assert math.isnan(latency.spread)
    assert not latency.within(0.05)
    assert latency.within(0.11)
    assert "NO" in [row[-1] for row in judged.table(0.05).rows]


def test_a_run_that_did_not_keep_its_schedule_is_left_out_and_said_so() -> None:
    bad = result(Driver.LIVE, 9.0, "INVALID: the schedule was not kept: p99 lag (s) 3, valid up to 0.05")
    (judged,) = fidelity([result(Driver.SIM, 1.0), result(Driver.LIVE, 1.0), bad])
    assert (judged.runs, judged.left_out) == (1, 1)
    assert judged.errors[0].error == pytest.approx(0.0)
    assert any("not kept" in note for note in judged.notes)
    assert fidelity([result(Driver.SIM, 1.0), bad]) == [], "nothing to judge by"


def test_runs_of_several_seeds_are_no_repeats_of_each_other() -> None:
    (judged,) = fidelity(
        [result(d, s, seed=n) for d in (Driver.SIM, Driver.LIVE) for n, s in ((1, 1.0), (2, 3.0))]
        + [result(Driver.SIM, 99.0, seed=3)]
    )
    latency = judged.errors[0]
    assert latency.error == pytest.approx(0.0), "only seeds that both have count"
    assert math.isnan(latency.spread)


def test_loads_are_judged_apart() -> None:
    judged = fidelity([result(d, 1.0, load=load) for load in (0.3, 0.9) for d in (Driver.SIM, Driver.LIVE)])
    assert [each.load for each in judged] == [0.3, 0.9]
