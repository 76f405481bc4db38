"""A report counts failures, tells small samples, keeps provenances apart and judges the load that was delivered."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.report.load_audit import Verdict, audit_load
from skyshore.report.request_record import RequestRecord
from skyshore.report.statistics import bootstrap_interval, minimum_samples, percentile
from skyshore.report.summary import summarise, summarise_by
from skyshore.report.tables import audit_table, byte_size, cost_table, latency_table, seconds


def record(
    index: int = 0,
    *,
    latency_s: float = 1.0,
    lag_s: float = 0.0,
    output_tokens: int = 11,
    frames: int = 0,
    status: OutcomeStatus = OutcomeStatus.OK,
    energy_source: str = "",
    node_id: str = "edge-1",
    link_bytes: int = 0,
    **fields: Any,
) -> RequestRecord:
    t_intended_s = index * 0.5
    kind = fields.pop("kind", TaskKind.LLM)
    outcome = Outcome(
        f"r{index}",
        "arm",
        node_id,
        status,
        finished_at_s=t_intended_s + latency_s,
        latency_s=latency_s,
        deadline_s=2.0,
        ttft_s=latency_s / 2 if kind is TaskKind.LLM else 0.0,
        up_bytes=link_bytes,
        worker=WorkerOutcome(output_tokens=output_tokens, frames=frames, energy_source=energy_source),
    )
    made = RequestRecord(f"r{index}", kind, "interactive", "", t_intended_s, 2.0, 0.0, outcome)
    return replace(made, **{"t_sent_s": t_intended_s + lag_s, **fields})


failed: dict[str, Any] = {"status": OutcomeStatus.FAILED, "error_code": "node_unavailable"}


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50), st.floats(0.1, 100))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], q: float) -> None:
    found = percentile(values, q)
    assert found in values
    covered = sum(value <= found for value in values) / len(values)
    below = sum(value < found for value in values) / len(values)
    assert covered >= q / 100 - 1e-9
    assert below < q / 100


def test_percentiles_of_known_samples() -> None:
    values = list(range(1, 101))
    assert [percentile(values, q) for q in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert math.isnan(percentile([], 50))
    assert percentile([1.0, 2.0, math.inf, math.inf], 50) == 2.0
    with pytest.raises(ValueError, match="above 0"):
        percentile([1.0], 0)


def test_p99_needs_the_sample_that_mlperf_asks_for() -> None:
    assert minimum_samples(99) == 459
    assert minimum_samples(50) == 7


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(5, 1, 60), lambda v: float(v.mean()), rng, resamples=200)
        covered += low <= 5 <= high
    assert 0.88 <= covered / 200 <= 1.0


def test_blocks_widen_the_interval_of_correlated_values() -> None:
    rng = np.random.default_rng(3)
    walk = np.repeat(rng.normal(0, 1, 100), 10)  # ten neighbours are late together
    shuffled = rng.permutation(walk)
    widths = []
    for series in (walk, shuffled):
        low, high = bootstrap_interval(series, lambda v: float(v.mean()), np.random.default_rng(0))
        widths.append(high - low)
    assert widths[0] > 1.8 * widths[1]


def test_latency_counts_from_the_intended_time_and_a_failure_is_infinite() -> None:
    assert record(latency_s=1.5, lag_s=1.0).latency_s == 1.5
    assert record(**failed).latency_s == math.inf
    assert record(**failed).ttft_s is None
    assert not record(**failed).met_deadline
    assert record(latency_s=1.0).tpot_s == pytest.approx(0.05)
    assert record(latency_s=1.0, output_tokens=1).tpot_s is None


def test_failures_pull_the_percentiles_up_and_the_attainment_down() -> None:
    records = [record(i, latency_s=1.0 if i % 2 else 3.0) for i in range(8)]
    records += [record(i, **failed) for i in (8, 9)]
    summary = summarise("all", records, duration_s=5.0)
    assert (summary.figures["requests"], summary.figures["answered"]) == (10, 8)
    assert summary.figures["attainment"] == pytest.approx(0.4)
    assert summary.figures["goodput_per_s"] == pytest.approx(0.8)
    assert summary.figures["latency_p50_s"] == 3.0
    assert summary.figures["latency_p95_s"] == math.inf
    assert summary.errors == {"node_unavailable": 2}
    assert summary.attainment_low <= 0.4 <= summary.attainment_high


def test_what_the_user_cancelled_is_neither_success_nor_failure() -> None:
    records = [record(0), record(1, status=OutcomeStatus.CANCELLED)]
    assert summarise("all", records, 1.0).figures["requests"] == 1


def test_joules_of_different_provenance_are_never_added_up() -> None:
    records = [
        record(0, unsplit_joules=2.0, energy_source="measured:rapl"),
        record(1, unsplit_joules=3.0, energy_source="measured:rapl"),
        record(2, unsplit_joules=7.0, energy_source="modelled:edge"),
        record(3, unsplit_joules=1.0),
    ]
    joules = summarise("all", records, 2.0).joules_by_source
    assert joules == {"measured:rapl": 5.0, "modelled:edge": 7.0, "unknown": 1.0}


def test_groups_are_disjoint_and_complete() -> None:
    records = [record(i, node_id=f"edge-{i % 3}") for i in range(9)] + [record(9, node_id="")]
    groups = summarise_by(lambda r: r.outcome.node_id, records, 5.0)
    assert [(g.group, g.figures["requests"]) for g in groups] == [("edge-0", 3), ("edge-1", 3), ("edge-2", 3)]


def test_json_of_records_and_summaries_has_no_infinities() -> None:
    row = json.loads(json.dumps(record(**failed).to_row(), allow_nan=False))
    assert row["latency_s"] is None, "there was no answer"
    summary = json.loads(json.dumps(summarise("all", [record(**failed)], 1.0).to_json(), allow_nan=False))
    assert summary["figures"]["latency_p50_s"] == "inf"
    assert summary["figures"]["tpot_p50_s"] is None


def test_a_small_sample_is_marked_and_a_large_one_is_not() -> None:
    few = latency_table("t", summarise("all", [record(i) for i in range(20)], 10.0), {})
    many = latency_table("t", summarise("all", [record(i) for i in range(459)], 230.0), {})
    assert few.rows[0][5:8] == ("1.00 s", "~1.00 s", "~1.00 s")
    assert "459" in few.note
    assert many.rows[0][5:8] == ("1.00 s", "1.00 s", "1.00 s")
    assert many.note == ""
    assert all(len(row) == len(few.columns) for row in few.rows)


def test_costs_name_their_provenance_and_what_does_not_apply_is_a_dash() -> None:
    chat = record(1, unsplit_joules=1.0, energy_source="modelled:x")
    video = record(
        0, kind=TaskKind.VIDEO_DETECT, frames=10, unsplit_joules=2.5, energy_source="measured:rapl", link_bytes=4200
    )
    table = cost_table(summarise("all", [video], 2.0), {})
    both = cost_table(
        summarise("all", [video, chat], 2.0), {"kind": summarise_by(lambda r: r.kind, [video, chat], 2.0)}
    )
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert (cells["TTFT p50"], cells["frames/s"], cells["link"]) == ("–", "5.0", "4.2 kB")
    assert (cells["energy"], table.note) == ("2.5 J", "energy: measured:rapl")
    assert [(row[0], *row[-2:]) for row in both.rows] == [
        ("all", "2.5 J", "1 J"),
        ("by kind", "", ""),
        (" llm", "–", "1 J"),
        (" video.detect", "2.5 J", "–"),
    ]
    assert both.note == "energy 1: measured:rapl, energy 2: modelled:x"


def test_cells_read_well() -> None:
    assert [seconds(v) for v in (0.0123, 2.5, math.inf, math.nan)] == ["12 ms", "2.50 s", "∞", "–"]
    assert [byte_size(v) for v in (0, 999, 1500, 2_500_000)] == ["–", "999 B", "1.5 kB", "2.5 MB"]


def audited(lag_s: float, **fields: Any) -> list[RequestRecord]:
    return [record(i, lag_s=lag_s, **fields) for i in range(40)]


def test_a_client_on_time_is_valid_one_late_is_degraded_one_far_too_late_is_invalid() -> None:
    assert audit_load(audited(0.001), 20.0, 0.1).verdict is Verdict.VALID
    assert audit_load(audited(0.1), 20.0, 0.1).verdict is Verdict.DEGRADED  # 5 % of the 2 s deadline
    assert audit_load(audited(0.5), 20.0, 0.1).verdict is Verdict.INVALID


def test_requests_that_were_never_sent_make_a_run_invalid() -> None:
    records = [*audited(0.001), record(40, t_sent_s=None, **failed)]
    assert audit_load(records, 20.5, 0.1).verdict is Verdict.INVALID


def test_a_closed_loop_client_is_caught_by_its_rate_and_a_busy_one_by_its_cpu() -> None:
    stretched = [replace(r, t_sent_s=r.t_intended_s * 1.1) for r in audited(0.0)]
    audit = audit_load(stretched, 20.0, 0.1)
    assert audit.verdict is Verdict.INVALID
    assert {f.check for f in audit.findings if f.verdict is not Verdict.VALID} >= {"rate error"}
    assert audit_load(audited(0.001), 20.0, 0.8).verdict is Verdict.DEGRADED
    assert "INVALID" in audit_table(audit).title


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5))
def test_runs_of_few_or_no_requests_are_judged_without_error(count: int) -> None:
    records = [record(i) for i in range(count)]
    assert audit_load(records, 10.0, 0.0).verdict is Verdict.VALID
    assert summarise("all", records, 10.0).figures["requests"] == count
