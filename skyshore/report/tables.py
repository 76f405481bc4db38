"""Tables as values: what a terminal, a Markdown file or a page then draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from skyshore.report.load_audit import LoadAudit
from skyshore.report.statistics import minimum_samples
from skyshore.report.summary import Percentiles, Summary

Row = tuple[str, ...]
Groups = Mapping[str, Sequence[Summary]]
NONE = "–"
_LATENCY = ("", "requests", "ok", "in time", "goodput/s", "p50", "p95", "p99")
_COST = ("", "TTFT p50", "p95", "TPOT", "tok/s", "frames/s", "link")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text, ready to show. The first column is left-aligned, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    wide_last: bool = False
    """The last column is prose, and may be broken over lines."""


def latency_table(title: str, whole: Summary, groups: Groups) -> Table:
    """Who was served in time. A percentile of too small a sample carries a `~`."""

    def cells(each: Summary) -> Row:
        return (
            str(each.requests),
            str(each.succeeded),
            NONE if math.isnan(each.attainment) else f"{each.attainment:.1%}",
            f"{each.goodput_per_s:.2f}",
            *_latency_cells(each.latency, each.requests),
        )

    few = any(each.requests < minimum_samples(99) for each in (whole, *chain(*groups.values())))
    note = f"~ too few requests to tell the percentile (p95 needs {minimum_samples(95)}, p99 {minimum_samples(99)})"
    return Table(title, _LATENCY, _rows(whole, groups, cells), note if few else "")


def cost_table(whole: Summary, groups: Groups) -> Table:
    """How fast tokens and frames came and what they took; joules have one column a provenance."""
    sources = sorted(whole.joules)

    def cells(each: Summary) -> Row:
        return (
            *_latency_cells(each.ttft, each.requests)[:2],
            seconds(each.tpot.p50_s),
            _rate(each.output_tokens_per_s),
            _rate(each.frames_per_s),
            byte_size(each.link_bytes),
            *(f"{each.joules[source]:.4g} J" if source in each.joules else NONE for source in sources),
        )

    marks = tuple(f"energy {number}" if len(sources) > 1 else "energy" for number in range(1, len(sources) + 1))
    note = ", ".join(f"{mark}: {source}" for mark, source in zip(marks, sources, strict=True))
    return Table("", (*_COST, *marks), _rows(whole, groups, cells), note)


def audit_table(audit: LoadAudit) -> Table:
    """One row a check."""
    rows = tuple(
        (
            f.check,
            NONE if math.isnan(f.value) else f"{f.value:.4g}",
            f"{f.valid_to:.3g}",
            f"{f.degraded_to:.3g}",
            f.verdict,
        )
        for f in audit.findings
    )
    return Table(f"Load audit: {audit.verdict}", ("check", "value", "valid to", "degraded to", ""), rows)


def _rows(whole: Summary, groups: Groups, cells: Callable[[Summary], Row]) -> tuple[Row, ...]:
    """The whole first; then each way of grouping under a row that holds nothing but its name."""
    rows: list[Row] = [(whole.group, *cells(whole))]
    for name, group in groups.items():
        rows.append((f"by {name}", *("" for _ in rows[0][1:])))
        rows += [(f" {each.group}", *cells(each)) for each in group]
    return tuple(rows)


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
