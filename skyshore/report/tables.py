"""Tables as values: what a terminal, a Markdown file or a page then draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from skyshore.report.load_audit import LoadAudit
from skyshore.report.statistics import minimum_samples
from skyshore.report.summary import Percentiles, Summary

NONE = "–"
_LATENCY = ("", "requests", "ok", "in time", "goodput/s", "p50", "p95", "p99")
_COST = ("", "TTFT p50", "TTFT p95", "TPOT p50", "tokens/s", "frames/s", "link", "energy")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text, ready to show. The first column is left-aligned, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def latency_table(title: str, summaries: Sequence[Summary]) -> Table:
    """Who was served in time; one row a group. A percentile of too small a sample carries a `~`."""
    few = any(summary.requests < minimum_samples(99) for summary in summaries)
    note = f"~ too few requests to tell the percentile (p95 needs {minimum_samples(95)}, p99 {minimum_samples(99)})"
    rows = tuple(
        (
            each.group,
            str(each.requests),
            str(each.succeeded),
            NONE if math.isnan(each.attainment) else f"{each.attainment:.1%}",
            f"{each.goodput_per_s:.2f}",
            *_latency_cells(each.latency, each.requests),
        )
        for each in summaries
    )
    return Table(title, _LATENCY, rows, note if few else "")


def cost_table(summaries: Sequence[Summary]) -> Table:
    """How fast tokens and frames came and what they took; one row a group."""
    rows = tuple(
        (
            each.group,
            *_latency_cells(each.ttft, each.requests)[:2],
            seconds(each.tpot.p50_s),
            _rate(each.output_tokens_per_s),
            _rate(each.frames_per_s),
            byte_size(each.link_bytes),
            "; ".join(f"{joules:.3g} J {source}" for source, joules in each.joules.items()) or NONE,
        )
        for each in summaries
    )
    return Table("", _COST, rows)


def audit_table(audit: LoadAudit) -> Table:
    """One row a check."""
    rows = tuple(
        (f.check, f"{f.value:.4g}", f"{f.valid_to:.3g}", f"{f.degraded_to:.3g}", f.verdict) for f in audit.findings
    )
    return Table(f"Load audit: {audit.verdict}", ("check", "value", "valid to", "degraded to", ""), rows)


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
