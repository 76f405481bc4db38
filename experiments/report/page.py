"""The report page of a bundle: one HTML file without scripts and without links to other files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from experiments.figures.comparison import Estimate, Group, warnings_of
from experiments.plan.bundle import Bundle
from experiments.plan.cell import REFERENCES, Driver
from experiments.report import charts
from experiments.report.tables import (
    BETTER,
    REFERENCE_NOTE,
    SHOWN,
    WORSE,
    figure_text,
    mark,
    relative_difference,
    title_of,
)
from skyshore.report.figures import FIGURES
from skyshore.report.tables import Table

CSS = Path(__file__).with_name("page.css")
MEANING = {
    "modelled": "computed in virtual time from models of nodes, links and energy",
    "emulated": "real processes, links and clocks; the engines only wait as long as their model says",
    "measured": "real processes and real inference on this machine",
}


def report_page(
    bundle: Bundle,
    groups: Sequence[Group],
    absent: Sequence[str],
    failures: Mapping[str, str],
    judged: Sequence[Table] = (),
) -> str:
    """The page as text; `judged` are tables of how far simulation and live runs differ."""
    colours = charts.policy_colours(bundle.experiment.contestants)
    title = bundle.experiment.inputs.parse().name
    parts = [*_head(bundle, groups), *_warnings(groups, absent, failures), _legend(colours)]
    parts += _loads(groups, colours)
    for (driver, load), some in groupby(groups, key=lambda group: (group.driver, group.load)):
        parts += _section(bundle, driver, load, list(some), colours)
    if judged:
        parts.append("<h2>Simulation against live runs</h2>")
        parts += [_text_table(table) for table in judged]
    parts += _foot(bundle)
    style = CSS.read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "<main>\n" + "\n".join(parts) + "\n</main>"
    return f'<!doctype html><html lang="en"><head>{head}<style>{style}</style></head><body>{body}</body></html>\n'


def _head(bundle: Bundle, groups: Sequence[Group]) -> Iterator[str]:
    experiment, scenario = bundle.experiment, bundle.experiment.inputs.parse()
    requests = sum(result.figures["requests"] or 0 for group in groups for result in group.results)
    chips = {
        "policies": str(len(experiment.policies)),
        "paired seeds": str(len(experiment.seeds)),
        "loads": ", ".join(f"{load:g}" for load in experiment.loads),
        "nodes": str(sum(node.count for node in scenario.nodes)),
        "seconds per run": f"{scenario.duration_s:g}",
        "requests in total": f"{requests:,.0f}",
    }
    yield f"<h1>{escape(scenario.name)}</h1>"
    if scenario.about:
        yield f"<p>{escape(scenario.about)}</p>"
    yield f'<ul class="chips">{"".join(f"<li>{name} <b>{value}</b></li>" for name, value in chips.items())}</ul>'
    for word in sorted({result.provenance for group in groups for result in group.results}):
        meaning = escape(MEANING.get(word, ""))
        yield f'<p class="soft"><span class="label {escape(word)}">{escape(word)}</span> {meaning}</p>'
    sources = sorted({source for group in groups for result in group.results for source in result.energy_sources})
    if sources:
        yield f'<p class="soft">Joules: {escape(", ".join(sources))}</p>'


def _warnings(groups: Sequence[Group], absent: Sequence[str], failures: Mapping[str, str]) -> Iterator[str]:
    if absent:
        yield f'<div class="warning"><b>Incomplete:</b> {len(absent)} cells are missing or were interrupted.</div>'
    for name, reason in failures.items():
        last = reason.strip().splitlines()[-1]
        yield f'<div class="warning"><b>{escape(name)}</b> failed: {escape(last)}</div>'
    for note in warnings_of(groups):
        yield f'<div class="warning">{escape(note)}</div>'


def _legend(colours: charts.Colours) -> str:
    names = (f"<span>{_swatch(colour)}{escape(title_of(policy))}</span>" for policy, colour in colours.items())
    return f'<div class="legend">{"".join(names)}</div>'


def _swatch(colour: str) -> str:
    return f'<i class="swatch" style="background:{colour}"></i>'


def _loads(groups: Sequence[Group], colours: charts.Colours) -> Iterator[str]:
    for driver, some in groupby(groups, key=lambda group: group.driver):
        members = list(some)
        if len({group.load for group in members}) > 1:
            yield f"<h2>Over the load · {driver}</h2>"
            yield _figure(charts.load_chart(members, colours), "Means over the seeds; the band is the 95 % interval.")


def _section(
    bundle: Bundle, driver: Driver, load: float, groups: Sequence[Group], colours: charts.Colours
) -> Iterator[str]:
    labels = " ".join(
        f'<span class="label {word}">{word}</span>' for word in sorted({group.provenance for group in groups})
    )
    curves = {group.policy: [bundle.curves(result.cell) for result in group.results] for group in groups}
    yield f"<h2>Load {load:g} · {driver} {labels}</h2>"
    yield _table(groups, bundle.experiment.reference, colours)
    yield _figure(
        charts.latency_chart(curves, colours),
        "Share of all requests, including failed ones: a line that ends below 100 % has failures. "
        "Right: where a line crosses 1 is its share of deadlines met.",
    )
    yield _figure(
        charts.joules_chart(groups),
        "Joules charged to requests. The energy of idle nodes and of work that was thrown away "
        "is in the joules of the fleet in the table.",
    )
    yield _figure(
        charts.frontier_chart(groups, colours),
        "Lower is less energy. The dashed line joins the policies that no other beats in both. Bars: 95 % intervals.",
    )
    yield _figure(charts.timeline_chart(curves, colours), "Means over the seeds.")
    yield _figure(charts.places_chart(curves), "Arms (node and configuration), or tiers where arms are many.")


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _table(groups: Sequence[Group], baseline: str, colours: charts.Colours) -> str:
    names = [n for n in SHOWN if any(n in g.figures and (g.figures[n].mean or n == "attainment") for g in groups)]
    heads = "".join(f"<th>{_swatch(colours[group.policy])} {escape(title_of(group.policy))}</th>" for group in groups)
    rows = "".join(
        f"<tr><th>{escape(SHOWN[name])}</th>{''.join(_cell(name, group.figures.get(name)) for group in groups)}</tr>"
        for name in names
    )
    several = max(len(group.results) for group in groups) > 1
    caption = (
        f"Mean over the seeds; in small letters its 95 % interval and the difference to <b>{escape(baseline)}</b> "
        f"on the same seeds: {BETTER} better, {WORSE} worse, ≈ not distinguishable. g is Hedges' effect size."
        if several
        else "One seed only: no intervals, and differences may be chance."
    )
    note = " A request that failed counts as infinitely late in the latency percentiles."
    if any(group.policy in REFERENCES for group in groups):
        note += f" {REFERENCE_NOTE}"
    return (
        f'<div class="scroll"><table><caption>{caption}{note}</caption>'
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _text_table(table: Table) -> str:
    heads = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    body = f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
    return f'<p class="soft">{escape(table.title)}</p><div class="scroll"><table>{body}</table></div>'


def _cell(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td>–</td>"
    parts = [figure_text(name, estimate.mean)]
    if math.isfinite(estimate.low) and estimate.high > estimate.low:
        parts.append(f"<small>{figure_text(name, estimate.low)} … {figure_text(name, estimate.high)}</small>")
    if estimate.versus is not None:
        found = mark(name, estimate)
        style = {BETTER: "better", WORSE: "worse"}.get(found, "")
        effect = f" · g {estimate.versus.hedges_g:+.1f}" if math.isfinite(estimate.versus.hedges_g) else ""
        effect = effect if estimate.versus.distinguishable else ""
        parts.append(f'<small class="{style}">{escape(relative_difference(name, estimate))}{effect}</small>')
    return f"<td>{''.join(parts)}</td>"


def _foot(bundle: Bundle) -> Iterator[str]:
    description = bundle.description()
    facts = {**description["host"], **{f"code {name}": value for name, value in description["code"].items()}}
    facts |= {"inputs sha256": description["inputs_sha256"], "made at": description["made_at"]}
    schedules = {
        f"requests of seed {result.cell.seed}, load {result.cell.load:g}": result.schedule_sha256
        for result in bundle.results()
    }
    notes = {result.cell.name: "; ".join(result.notes) for result in bundle.results() if result.notes}
    yield "<h2>Code and host</h2>"
    yield f"<dl>{_terms({name: str(value) for name, value in facts.items()})}</dl>"
    yield f"<details><summary>Digests of the schedules</summary><dl>{_terms(schedules)}</dl></details>"
    if notes:
        yield f"<details><summary>Notes of the runs</summary><dl>{_terms(notes)}</dl></details>"
    yield f"<details><summary>All figures</summary>{_glossary()}</details>"
    text = escape(bundle.experiment.inputs.text)
    yield f"<details open><summary>{escape(bundle.experiment.inputs.scenario)}</summary><pre>{text}</pre></details>"


def _terms(terms: Mapping[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in terms.items())


def _glossary() -> str:
    about = _terms({name: figure.title for name, figure in FIGURES.items()})
    return f'<p class="soft">Names in summary.json, each with its interval and its difference.</p><dl>{about}</dl>'
