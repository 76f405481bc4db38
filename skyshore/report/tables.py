"""Tables as values: what a terminal, a Markdown file or a page then draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from skyshore.report.load_audit import LoadAudit
from skyshore.report.statistics import minimum_samples
from skyshore.report.summary import Percentiles, Summary

NONE = "–"
_HEADINGS = ",requests,ok,in time,goodput/s,p50,p95,p99,TTFT p50,TTFT p95,TPOT p50,tokens/s,frames/s,link,energy"
_COLUMNS = tuple(_HEADINGS.split(","))


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text, ready to show. The first column is left-aligned, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def summary_table(title: str, summaries: Sequence[Summary]) -> Table:
    """One row a group. A percentile of too small a sample carries a `~`."""
    few = any(summary.requests < minimum_samples(99) for summary in summaries)
    note = f"~ too few requests to tell the percentile (p95 needs {minimum_samples(95)}, p99 {minimum_samples(99)})"
    return Table(title, _COLUMNS, tuple(_row(summary) for summary in summaries), note if few else "")


def audit_table(audit: LoadAudit) -> Table:
    """One row a check."""
    rows = tuple(
        (f.check, f"{f.value:.4g}", f"{f.valid_to:.3g}", f"{f.degraded_to:.3g}", f.verdict) for f in audit.findings
    )
    return Table(f"Load audit: {audit.verdict}", ("check", "value", "valid to", "degraded to", ""), rows)


def _row(summary: Summary) -> tuple[str, ...]:
    count = summary.requests
    return (
        summary.group,
        str(count),
        str(summary.succeeded),
        NONE if math.isnan(summary.attainment) else f"{summary.attainment:.1%}",
        f"{summary.goodput_per_s:.2f}",
        *_latency_cells(summary.latency, count),
        *_latency_cells(summary.ttft, count)[:2],
        seconds(summary.tpot.p50_s),
        _rate(summary.output_tokens_per_s),
        _rate(summary.frames_per_s),
        byte_size(summary.link_bytes),
        "; ".join(f"{joules:.3g} J {source}" for source, joules in summary.joules.items()) or NONE,
    )


def _latency_cells(values: Percentiles, count: int) -> tuple[str, str, str]:
    p50, p95, p99 = (
        ("~" if count < minimum_samples(q) and not math.isnan(value) else "") + seconds(value)
        for q, value in ((50, values.p50_s), (95, values.p95_s), (99, values.p99_s))
    )
    return p50, p95, p99


def seconds(value_s: float) -> str:
    """Milliseconds below one second; `∞` for failures, a dash for nothing."""
    if math.isnan(value_s):
        return NONE
    if math.isinf(value_s):
        return "∞"
    return f"{value_s * 1e3:.0f} ms" if abs(value_s) < 1 else f"{value_s:.2f} s"


def byte_size(count: int) -> str:
    """Decimal units, a dash for nothing."""
    if count == 0:
        return NONE
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value else NONE
