"""Tables as values: what a terminal, a Markdown file or a page then draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from skyshore.report.load_audit import LoadAudit
from skyshore.report.statistics import minimum_samples
from skyshore.report.summary import Summary

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
        attainment = each.figures["attainment"]
        return (
            f"{each.figures['requests']:.0f}",
            f"{each.figures['answered']:.0f}",
            NONE if attainment is None else f"{attainment:.1%}",
            f"{each.figures['goodput_per_s']:.2f}",
            *(_percentile(each, "latency", q, "requests") for q in (50, 95, 99)),
        )

    noisy = any((each.figures["requests"] or 0) < minimum_samples(99) for each in (whole, *chain(*groups.values())))
    note = f"~ too few requests for this percentile (p95 needs {minimum_samples(95)}, p99 {minimum_samples(99)})"
    return Table(title, _LATENCY, _rows(whole, groups, cells), note if noisy else "")


def cost_table(whole: Summary, groups: Groups) -> Table:
    """How fast tokens and frames came, and the cost; joules have one column for each provenance."""
    sources = sorted(whole.joules_by_source)

    def cells(each: Summary) -> Row:
        joules = each.joules_by_source
        return (
            *(_percentile(each, "ttft", q, "answered") for q in (50, 95)),
            seconds(each.figures["tpot_p50_s"]),
            _rate(each.figures["output_tokens_per_s"]),
            _rate(each.figures["frames_per_s"]),
            byte_size(round(each.figures["link_bytes"] or 0)),
            *(f"{joules[source]:.4g} J" if source in joules else NONE for source in sources),
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


def _percentile(each: Summary, name: str, q: int, count: str) -> str:
    value, noisy = each.figures[f"{name}_p{q}_s"], (each.figures[count] or 0) < minimum_samples(q)
    return f"~{seconds(value)}" if noisy and value is not None else seconds(value)


def seconds(value_s: float | None) -> str:
    """Milliseconds below one second; `∞` for failures, a dash for nothing."""
    if value_s is None or math.isnan(value_s):
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


def _rate(value: float | None) -> str:
    return f"{value:.1f}" if value else NONE
