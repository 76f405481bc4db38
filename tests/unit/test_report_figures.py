"""One definition of each figure: exact and streaming forms agree, and the sums do not depend on the batches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.report.distribution import LARGEST_S, SMALLEST_S, STEP, ExactDistribution, LogHistogram
from skyshore.report.figures import BATCH, FIGURES, FigureTally
from skyshore.report.request_record import RequestRecord
from skyshore.report.statistics import percentile

statuses = st.sampled_from([status for status in OutcomeStatus])
records = st.builds(
    lambda status, kind, latency_s, first, tokens, joules, name: RequestRecord(
        "r",
        kind,
        name,
        "",
        0.0,
        2.0,
        0.5,
        Outcome(
            "r",
            "a",
            "n",
            status,
            latency_s,
            latency_s,
            2.0,
            ttft_s=first * latency_s if kind is TaskKind.LLM else 0.0,
            up_bytes=tokens,
            quality=first,
            worker=WorkerOutcome(output_tokens=tokens, inference_joules=joules, energy_source="modelled:test"),
        ),
        "edge",
    ),
    statuses,
    st.sampled_from([TaskKind.LLM, TaskKind.VIDEO_DETECT]),
    st.floats(1e-3, 1e3),
    st.floats(0.01, 1.0),
    st.integers(1, 500),
    st.floats(0, 1e3),
    st.sampled_from(["interactive", "batch"]),
)


def tallied(rows: list[RequestRecord], tally: FigureTally | None = None) -> dict[str, float | None]:
    tally = FigureTally() if tally is None else tally
    for row in rows:
        tally(row)
    return tally.figures(10.0)


@given(st.lists(records, max_size=60))
def test_exact_and_streaming_figures_agree_within_the_error_that_the_histogram_states(
    rows: list[RequestRecord],
) -> None:
    streaming, exact = tallied(rows), tallied(rows, FigureTally(ExactDistribution))
    for name in FIGURES:
        ours, theirs = streaming[name], exact[name]
        if "_p50_" in name or "_p95_" in name or "_p99_" in name:
            assert (ours is None) == (theirs is None)
            # A TPOT may lie below the smallest bin.
            assert ours is None or theirs is None or ours == pytest.approx(theirs, rel=STEP - 1, abs=SMALLEST_S)
        else:
            assert ours == theirs, name


@given(st.lists(st.floats(SMALLEST_S, LARGEST_S), min_size=1, max_size=200), st.floats(0.1, 100), st.integers(0, 20))
def test_percentiles_of_both_forms_are_the_nearest_rank_with_the_missing_ones_infinite(
    values: list[float], q: float, missing: int
) -> None:
    truth = percentile([*values, *[math.inf] * missing], q)
    exact, streaming = ExactDistribution(), LogHistogram()
    for form in (exact, streaming):
        form.add(values[:3])
        form.add(values[3:])
        assert form.count == len(values)
    assert exact.percentile_s(q, of=len(values) + missing) == truth
    assert streaming.percentile_s(q, of=len(values) + missing) == pytest.approx(truth, rel=STEP - 1)


def test_percentiles_of_nothing_are_not_a_number() -> None:
    assert math.isnan(ExactDistribution().percentile_s(50)) and math.isnan(LogHistogram().percentile_s(50))


@given(st.lists(records, min_size=1, max_size=8), st.integers(0, 2))
def test_figures_do_not_depend_on_where_a_batch_ends(rows: list[RequestRecord], repeats: int) -> None:
    rows = rows * (1 + repeats * (BATCH // len(rows)))
    interrupted = FigureTally()
    for place, row in enumerate(rows):
        interrupted(row)
        if place % 7 == 0:
            interrupted.flush()
    assert interrupted.figures(10.0) == tallied(rows)


def test_classes_are_counted_apart_and_failures_keep_their_costs() -> None:
    answered = RequestRecord(
        "r", TaskKind.LLM, "urgent", "", 0.0, 2.0, 0.0, Outcome("r", "a", "n", OutcomeStatus.OK, 1.0, 1.0, 2.0), "cloud"
    )
    late = replace(answered, service_class="calm", outcome=replace(answered.outcome, latency_s=3.0, up_bytes=7))
    failed = replace(late, outcome=replace(late.outcome, status=OutcomeStatus.FAILED))
    tally = FigureTally()
    figures = tallied([answered, late, failed], tally)
    assert (figures["requests"], figures["answered"], figures["up_bytes"]) == (3, 2, 14)
    assert figures["latency_p99_s"] == math.inf
    assert figures["answered_latency_p99_s"] == pytest.approx(3.0, rel=0.005)
    assert tally.statuses == {"failed": 1, "ok": 2}
    by_class = tally.by_class(10.0)
    assert {name: each["attainment"] for name, each in by_class.items()} == {"calm": 0.0, "urgent": 1.0}
    assert np.isclose(sum(each["requests"] or 0 for each in by_class.values()), 3)
