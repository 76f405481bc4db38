"""A comparison as tables of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from experiments.figures.comparison import Estimate, Group
from experiments.plan.cell import BEST_FIXED_ARM, ORACLE_SCHEDULE, REFERENCES, CellResult
from skyshore.report.figures import FIGURES
from skyshore.report.tables import NONE, Table, byte_size, seconds

SHOWN = {
    "attainment": "deadlines met",
    "goodput_per_s": "goodput/s",
    "output_tokens_per_s": "tokens/s",
    "frames_per_s": "frames/s",
    "latency_p50_s": "latency p50",
    "latency_p95_s": "latency p95",
    "ttft_p95_s": "TTFT p95",
    "joules_per_request": "J per answer",
    "transmission_joules_per_request": "  on links",
    "inference_joules_per_request": "  inference",
    "idle_joules_per_request": "  share of idle power",
    "joules_per_met": "J per deadline met",
    "fleet_joules_per_met": "fleet J per deadline met",
    "link_bytes_per_request": "link bytes per request",
    "compute_s_per_request": "compute time per request",
    "quality": "quality",
    "quality_violations": "below quality floor",
    "edge_share": "edge share",
    "rejected": "refused",
    "failed": "failed",
    "expired": "past their deadline",
    "regret_fixed": "regret: best fixed arm",
    "regret_oracle": "regret: oracle schedule",
    "regret_bound": "regret: bound",
}
"""Columns of the tables a terminal shows; `summary.json` has all figures."""

MOST_COLUMNS = 6
REGRETS = ("regret_fixed", "regret_oracle", "regret_bound")
SHARES = ("attainment", "edge_share", *REGRETS)
REFERENCE_TITLES = {BEST_FIXED_ARM: "best fixed arm", ORACLE_SCHEDULE: "oracle schedule"}
REFERENCE_NOTE = (
    "The best fixed arm and the oracle schedule are not policies: they know the whole run in advance. "
    "Regret: deadlines met by the reference, or by the upper bound, minus deadlines met; below zero is better."
)
BETTER, WORSE, SAME = "▲", "▼", "≈"


def comparison_tables(groups: Sequence[Group], baseline: str) -> list[Table]:
    """For each driver and load: the figures of every policy, then the difference of each to the baseline."""
    tables = []
    for (driver, load), alike in groupby(groups, key=lambda group: (group.driver, group.load)):
        columns = list(alike)
        title = f"load {load:g} · {driver} ({', '.join(sorted({each.provenance for each in columns}))})"
        names = [name for name in SHOWN if any(_has(group, name) for group in columns)]
        tables += [_figures(title, names, some) for some in _split(columns)]
        others = [group for group in columns if group.policy != baseline]
        tables += [_differences(f"against {baseline}, same seeds", names, some) for some in _split(others)]
    return tables


def figure_text(name: str, value: float) -> str:
    """A figure with its unit, about three digits."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞"
    if name in SHARES:
        return f"{value:.1%}"
    if name == "quality":
        return f"{value:.3f}"
    if name == "compute_s_per_request" or (name.endswith("_s") and not name.endswith("_per_s")):
        return seconds(value)
    return byte_size(round(value)) if "bytes" in name else f"{value:.4g}"


def relative_difference(name: str, estimate: Estimate) -> str:
    """`+3.1 % ▲`: the difference to the baseline, and whether it is better, worse or not distinguishable."""
    versus = estimate.versus
    if versus is None or math.isnan(versus.mean):
        return NONE
    theirs = estimate.mean - versus.mean
    if name in SHARES:
        text = f"{versus.mean * 100:+.1f} pt"
    else:
        text = f"{versus.mean / abs(theirs):+.1%}" if theirs else f"{versus.mean:+.3g}"
    return f"{text} {mark(name, estimate)}".rstrip()


def mark(name: str, estimate: Estimate) -> str:
    """Better, worse or the same; empty for a figure without a better side and for a single seed."""
    versus = estimate.versus
    if versus is None or not math.isfinite(versus.low):
        return ""
    if not versus.distinguishable:
        return SAME
    better = FIGURES[name].better
    return "" if not better else BETTER if (versus.mean > 0) == (better == "more") else WORSE


def _split(groups: Sequence[Group]) -> list[Sequence[Group]]:
    """At most `MOST_COLUMNS` policies side by side."""
    return [groups[start : start + MOST_COLUMNS] for start in range(0, len(groups), MOST_COLUMNS)]


def _has(group: Group, name: str) -> bool:
    return name in group.figures and (group.figures[name].mean != 0 or name == "attainment")


def _figures(title: str, names: Sequence[str], groups: Sequence[Group]) -> Table:
    rows = tuple((SHOWN[name], *(_with_margin(name, group.figures.get(name)) for group in groups)) for name in names)
    seeds = max(len(group.results) for group in groups)
    note = f"mean of {seeds} seeds ± half of its 95 % interval. " if seeds > 1 else ""
    note += "A failed request counts as infinitely late."
    if any(group.policy in REFERENCES for group in groups):
        note += f" {REFERENCE_NOTE}"
    return Table(title, ("", *(title_of(group.policy) for group in groups)), rows, note)


def _differences(title: str, names: Sequence[str], groups: Sequence[Group]) -> Table:
    shown = [name for name in names if name not in REGRETS]  # they differ as deadlines met do
    rows = tuple((SHOWN[name], *(_difference(name, group.figures.get(name)) for group in groups)) for name in shown)
    note = f"{BETTER} better, {WORSE} worse, {SAME} not distinguishable (95 % interval of paired differences holds 0)"
    return Table(title, ("", *(title_of(group.policy) for group in groups)), rows, note)


def title_of(policy: str) -> str:
    """What a column is called."""
    return REFERENCE_TITLES.get(policy, policy)


def _with_margin(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    text, margin = figure_text(name, estimate.mean), (estimate.high - estimate.low) / 2
    if not (margin > 0 and estimate.mean):
        return text
    return f"{text} ±{100 * margin:.1f} pt" if name in SHARES else f"{text} ±{margin / abs(estimate.mean):.1%}"


def _difference(name: str, estimate: Estimate | None) -> str:
    return NONE if estimate is None else relative_difference(name, estimate)


def result_tables(result: CellResult) -> list[Table]:
    """One cell: the figures of the whole run and of each service class."""
    cell = result.cell
    names = [name for name in FIGURES if result.figures.get(name) is not None]
    columns = {"all": result.figures, **(result.by_class if len(result.by_class) > 1 else {})}
    rows = tuple(
        (FIGURES[name].title, *(_plain(name, figures.get(name)) for figures in columns.values())) for name in names
    )
    state = "" if result.complete else "INTERRUPTED · "
    title = f"{state}{cell.policy} · seed {cell.seed} · load {cell.load:g} · {cell.driver} ({result.provenance})"
    note = f"energy {', '.join(result.energy_sources) or NONE} · schedule {result.schedule_sha256[:12]}"
    if result.decisions_sha256:
        note += f" · decisions {result.decisions_sha256[:12]}"
    return [Table(title, ("", *columns), rows, note)]


def _plain(name: str, value: float | None) -> str:
    return NONE if value is None else figure_text(name, value)
