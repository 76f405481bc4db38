"""Charts as SVG text for a page. Lines, text and grids take their colours from the page, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.figures.comparison import Estimate, Group
from experiments.figures.curves import QUANTILES

INK, GRID = "#010203", "#040506"
"""Placeholders for the colours of the page; no chart uses them otherwise."""
POLICY_COLOURS = (
    "#0b7bc1",
    "#e08a00",
    "#009e73",
    "#c8579b",
    "#7a5cd0",
    "#d6502b",
    "#4aa8d8",
    "#8a8d91",
    "#b3a11a",
    "#5b7f3a",
)
PARTS = {
    "transmission_joules": ("links", "#4aa8d8"),
    "inference_joules": ("inference", "#d6502b"),
    "idle_joules": ("idle share", "#b9a06a"),
}
PLACE_COLOURS = (
    "#1b9e77", "#7fc8ae", "#2c6fbb", "#8db8e8", "#7a5cd0", "#b9a7ea",
    "#d6502b", "#f0a58e", "#e0a100", "#f2d27c", "#a8577e", "#8a8d91",
)  # fmt: skip
REFUSED_COLOUR = "#3a3d42"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""Curves of a policy's cells, by policy."""
Colours = Mapping[str, str]
Floats = NDArray[np.float64]


def policy_colours(policies: Sequence[str]) -> dict[str, str]:
    """A colour for each policy, the same in every chart of a report."""
    return {policy: POLICY_COLOURS[place % len(POLICY_COLOURS)] for place, policy in enumerate(policies)}


def latency_chart(curves: Curves, colours: Colours) -> str:
    """Share of all requests answered within a time, and within a part of their deadline."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for axes, name in ((left, "latency_s"), (right, "latency_per_deadline")):
            for policy, cells in curves.items():
                times, shares = _mean_distribution(cells, name)
                axes.plot(times, shares, color=colours[policy])
            axes.set(xscale="log", ylim=(0, 1.02))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        left.set(title="Answered within", xlabel="seconds since the intended time", ylabel="share of requests")
        left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        right.set(title="Answered within a part of the deadline", xlabel="latency ÷ deadline")
        right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        right.axvline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))

    return _svg(draw, 10, 3.5)


def timeline_chart(curves: Curves, colours: Colours) -> str:
    """Deadlines met by the time requests were due, and requests in the system, over the run."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for policy, cells in curves.items():
            times, met = _mean_timeline(cells, lambda line: _ratio(line["met"], line["due"]))
            left.plot(times, met, color=colours[policy], linewidth=1.5)
            times, inside = _mean_timeline(cells, lambda line: np.asarray(line["inside"], dtype=np.float64))
            right.plot(times, inside, color=colours[policy], linewidth=1.5)
        left.set(title="Deadlines met, by when requests were due", xlabel="seconds of the run", ylim=(-0.02, 1.04))
        left.set_ylabel("share of requests")
        left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        right.set(title="Requests in the system", xlabel="seconds of the run", ylabel="requests")
        right.set_ylim(bottom=0)

    return _svg(draw, 10, 3.1)


def joules_chart(groups: Sequence[Group]) -> str:
    """Joules per deadline met, split in three, as charged to requests."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = [group.policy for group in groups]
        start = np.zeros(len(groups))
        for part, (label, colour) in PARTS.items():
            widths = np.array([_per_met(group, part) for group in groups])
            axes.barh(names, widths, left=start, color=colour, height=0.62, label=label)
            start += widths
        for row, total in enumerate(start):
            axes.annotate(f"{total:.3g} J", (total, row), (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_xlabel("joules charged to requests ÷ deadlines met")
        axes.set(title="Joules per deadline met", xlim=(0, max(float(start.max(initial=0)), 1e-9) * 1.15))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=3)

    return _svg(draw, 10, 1.5 + 0.38 * len(groups))


def places_chart(curves: Curves) -> str:
    """Requests of each policy by arm, as shares of all requests."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        counts = {policy: _added(cell["places"] for cell in cells) for policy, cells in curves.items()}
        places = _largest(_added(counts.values()), len(PLACE_COLOURS))
        start = np.zeros(len(counts))
        for number, place in enumerate(places):
            shares = np.array([_share(count, place, places) for count in counts.values()])
            colour = REFUSED_COLOUR if place == "refused" else PLACE_COLOURS[number % len(PLACE_COLOURS)]
            axes.barh(list(counts), shares, left=start, color=colour, height=0.62, label=place)
            start += shares
        axes.set(title="Requests by arm", xlim=(0, 1), xlabel="share of requests")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)

    return _svg(draw, 10, 2.2 + 0.38 * len(curves))


def frontier_chart(groups: Sequence[Group], colours: Colours) -> str:
    """Energy against latency, quality and bytes: a line joins the policies that no other policy beats in both."""
    panels = (
        ("answered_latency_p95_s", "p95 of answers, seconds", -1),
        ("quality", "quality", 1),
        ("link_bytes_per_request", "link kB per request", -1),
        ("attainment", "deadlines met", 1),
    )

    def draw(figure: Figure) -> None:
        for axes, (name, label, sign) in zip(figure.subplots(1, 4, sharey=True), panels, strict=True):
            points = [group for group in groups if name in group.figures and "joules_per_met" in group.figures]
            _frontier(axes, points, name, sign, colours)
            axes.set_xlabel(label)
            axes.locator_params(axis="x", nbins=4)
        figure.axes[0].set(ylabel="joules per deadline met", title="Energy against latency, quality, bytes")
        figure.axes[0].set_ylim(bottom=0)
        figure.axes[3].set_xlim(right=min(1.005, figure.axes[3].get_xlim()[1]))
        figure.axes[2].xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}")
        figure.axes[3].xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _svg(draw, 10, 3.1)


def load_chart(groups: Sequence[Group], colours: Colours) -> str:
    """Deadlines met, goodput and joules per deadline met over the load, with 95 % intervals."""
    panels = (
        ("attainment", "Deadlines met, share"),
        ("goodput_per_s", "Goodput, requests/s"),
        ("joules_per_met", "Joules per deadline met"),
    )

    def draw(figure: Figure) -> None:
        for axes, (name, title) in zip(figure.subplots(1, 3), panels, strict=True):
            for policy, colour in colours.items():
                found = [(g.load, g.figures[name]) for g in groups if g.policy == policy and name in g.figures]
                loads = [load for load, _ in found]
                axes.plot(loads, [e.mean for _, e in found], color=colour, marker="o", markersize=4)
                low, high = ([getattr(e, end) for _, e in found] for end in ("low", "high"))
                axes.fill_between(loads, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.set(title=title, xlabel="load (1: the scenario's own rates)")
            axes.set_ylim(bottom=0)
        figure.axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _svg(draw, 10, 3.1)


def _frontier(axes: Axes, groups: Sequence[Group], name: str, sign: int, colours: Colours) -> None:
    for group in groups:
        x, y = group.figures[name], group.figures["joules_per_met"]
        wide, tall = _error(x), _error(y)
        colour = colours[group.policy]
        axes.errorbar(x.mean, y.mean, tall, wide, fmt="o", color=colour, markersize=7, elinewidth=1.1)
    points = [(group.figures[name].mean, group.figures["joules_per_met"].mean) for group in groups]
    best = sorted(
        (x, y) for x, y in points if not any(_beats((u, v), (x, y), sign) for u, v in points if (u, v) != (x, y))
    )
    axes.plot([x for x, _ in best], [y for _, y in best], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)


def _beats(one: tuple[float, float], other: tuple[float, float], sign: int) -> bool:
    return sign * one[0] >= sign * other[0] and one[1] <= other[1]


def _error(estimate: Estimate) -> list[list[float]] | None:
    """How far the interval reaches below and above the mean."""
    mean, low, high = estimate.mean, estimate.low, estimate.high
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]] if math.isfinite(low) else None


def _per_met(group: Group, part: str) -> float:
    if "attainment" not in group.figures:  # interrupted before a request had ended
        return 0.0
    met = group.figures["attainment"].mean * group.figures["requests"].mean
    return group.figures[part].mean / met if met else 0.0


def _mean_distribution(cells: Sequence[Mapping[str, Any]], name: str) -> tuple[Floats, Floats]:
    """Share of all requests answered by a time, averaged over the cells; all requests due are counted."""
    known = [cell for cell in cells if cell[name]]
    if not known:
        return np.array([1e-3, 1.0]), np.zeros(2)
    low = min(cell[name][0] for cell in known) * 0.8
    high = max(cell[name][-1] for cell in known) * 1.25
    times = np.geomspace(low, high, 240)
    share = np.asarray(QUANTILES) / 100
    curves = [
        np.interp(np.log(times), np.log(cell[name]), share, left=0.0, right=1.0) * cell["answered"] / cell["requests"]
        for cell in known
    ]
    return times, np.sum(curves, axis=0) / len(cells)


def _mean_timeline(
    cells: Sequence[Mapping[str, Any]], column: Callable[[Mapping[str, Any]], Floats]
) -> tuple[Floats, Floats]:
    """One line of all cells, on the coarsest grid among them."""
    lines = [cell["timeline"] for cell in cells if cell["timeline"]["due"]]
    if not lines:
        return np.zeros(1), np.zeros(1)
    step_s = max(line["bin_s"] for line in lines)
    end_s = max(line["bin_s"] * len(line["due"]) for line in lines)
    times = np.arange(step_s / 2, end_s, step_s)
    values = []
    for line in lines:
        own = column(line)
        centres = (np.arange(len(own)) + 0.5) * line["bin_s"]
        good = np.isfinite(own)
        values.append(np.interp(times, centres[good], own[good], right=math.nan) if good.any() else times * math.nan)
    there = np.isfinite(values).any(axis=0)
    return times[there], np.nanmean(np.asarray(values)[:, there], axis=0)


def _ratio(over: Sequence[int], under: Sequence[int]) -> Floats:
    top, bottom = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    found: Floats = np.divide(top, bottom, out=np.full(len(top), math.nan), where=bottom > 0)
    return found


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _largest(counts: Counter[str], most: int) -> list[str]:
    if len(counts) <= most:
        return sorted(counts)
    return [*sorted(name for name, _ in counts.most_common(most - 1)), "others"]


def _share(counts: Counter[str], place: str, places: Sequence[str]) -> float:
    total = max(1, counts.total())
    if place == "others" and place not in counts:
        return (total - sum(counts[name] for name in places)) / total
    return counts[place] / total


def _svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """Draw, then replace colours and fonts by those of the page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": draw.__qualname__ + f"{width}x{height}"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "system-ui, sans-serif", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", text)
