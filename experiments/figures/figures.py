"""The figures of a cell, added up row by row in memory that does not grow; the same code for every driver."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experiments.figures.outcome_table import OutcomeRow
from simulator.tally import LogHistogram
from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure is called in tables, and which way is better."""

    title: str
    better: Literal["more", "less", ""] = ""


FIGURES: Mapping[str, Figure] = {
    "requests": Figure("requests due"),
    "answered": Figure("requests answered", "more"),
    "attainment": Figure("deadlines met, share of all requests", "more"),
    "goodput_per_s": Figure("requests in time per second", "more"),
    "output_tokens_per_s": Figure("tokens per second", "more"),
    "frames_per_s": Figure("frames per second", "more"),
    # Of all requests, one that failed counting as infinitely late.
    "latency_p50_s": Figure("latency p50", "less"),
    "latency_p95_s": Figure("latency p95", "less"),
    "latency_p99_s": Figure("latency p99", "less"),
    # Of those that were answered.
    "answered_latency_mean_s": Figure("latency of answers, mean", "less"),
    "answered_latency_p50_s": Figure("latency of answers, p50", "less"),
    "answered_latency_p95_s": Figure("latency of answers, p95", "less"),
    "answered_latency_p99_s": Figure("latency of answers, p99", "less"),
    "ttft_p50_s": Figure("TTFT p50", "less"),
    "ttft_p95_s": Figure("TTFT p95", "less"),
    "ttft_p99_s": Figure("TTFT p99", "less"),
    "tpot_p50_s": Figure("TPOT p50", "less"),
    "tpot_p95_s": Figure("TPOT p95", "less"),
    "tpot_p99_s": Figure("TPOT p99", "less"),
    "queue_mean_s": Figure("queueing, mean", "less"),
    # Charged to requests.
    "transmission_joules": Figure("joules on links", "less"),
    "inference_joules": Figure("joules of inference", "less"),
    "idle_joules": Figure("joules of idle power, share of requests", "less"),
    "joules": Figure("joules charged to requests", "less"),
    "joules_per_request": Figure("joules per answered request", "less"),
    "transmission_joules_per_request": Figure("of these, on links", "less"),
    "inference_joules_per_request": Figure("of these, of inference", "less"),
    "idle_joules_per_request": Figure("of these, share of idle power", "less"),
    "joules_per_met": Figure("joules per deadline met", "less"),
    # All that the nodes drew, work thrown away and idle hours too, plus links.
    "fleet_joules": Figure("joules of the fleet", "less"),
    "fleet_joules_per_met": Figure("joules of the fleet per deadline met", "less"),
    "up_bytes": Figure("bytes to nodes", "less"),
    "down_bytes": Figure("bytes from nodes", "less"),
    "link_bytes": Figure("bytes on links", "less"),
    "link_bytes_per_request": Figure("bytes on links per request", "less"),
    "compute_s": Figure("seconds of compute", "less"),
    "compute_s_per_request": Figure("seconds of compute per request", "less"),
    "quality": Figure("quality, mean of answers", "more"),
    "deadline_violations": Figure("requests not answered in time", "less"),
    "quality_violations": Figure("answers below the quality floor", "less"),
    "rejected": Figure("requests refused", "less"),
    "failed": Figure("requests failed", "less"),
    "expired": Figure("requests past their deadline", "less"),
    "edge_share": Figure("share of answers from the edge"),
    "met_bound": Figure("upper bound on deadlines met, by any schedule"),
    # As shares of all requests; below zero for one that did better.
    "regret_fixed": Figure("deadlines met short of the best fixed arm", "less"),
    "regret_foresight": Figure("deadlines met short of a schedule made with foresight", "less"),
    "regret_bound": Figure("deadlines met short of the clairvoyant bound", "less"),
}
"""Every name a cell's figures may have, in reading order. Units are in the names; shares are in 0..1."""


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    met: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    below_floor: int = 0
    totals: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    latency: LogHistogram = field(default_factory=LogHistogram)
    ttft: LogHistogram = field(default_factory=LogHistogram)
    tpot: LogHistogram = field(default_factory=LogHistogram)


_JOULES = ("transmission_joules", "inference_joules", "idle_joules")
_ADDED = (*_JOULES, "up_bytes", "down_bytes")


class FigureTally:
    """A `RowSink` that keeps sums and histograms and forgets the rows. Requests cancelled by the user are left out."""

    def __init__(self) -> None:
        self._all = _Sums()
        self._by_class: defaultdict[str, _Sums] = defaultdict(_Sums)
        self._energy_sources: set[str] = set()

    def __call__(self, row: OutcomeRow) -> None:
        """Count one request."""
        if row.status is OutcomeStatus.CANCELLED:
            return
        if row.energy_source:
            self._energy_sources.add(row.energy_source)
        _add(self._all, row)
        _add(self._by_class[row.service_class], row)

    @property
    def requests(self) -> int:
        """Rows counted so far."""
        return self._all.requests

    @property
    def statuses(self) -> dict[str, int]:
        """Requests by how they ended."""
        return dict(sorted(self._all.statuses.items()))

    @property
    def energy_sources(self) -> tuple[str, ...]:
        """Provenance of the joules, each word once."""
        return tuple(sorted(self._energy_sources))

    def figures(self, duration_s: float, *, fleet_joules: float | None = None) -> dict[str, float | None]:
        """Named figures, all of `FIGURES`. Rates are over `duration_s`; what is not known stays None.

        `fleet_joules`: all that the nodes drew.
        """
        figures = _figures(self._all, duration_s)
        if fleet_joules is not None:
            figures["fleet_joules"] = fleet_joules + self._all.totals["transmission_joules"]
            figures["fleet_joules_per_met"] = _ratio(figures["fleet_joules"], self._all.met)
        return figures

    def by_class(self, duration_s: float) -> dict[str, dict[str, float | None]]:
        """The same for each service class."""
        return {name: _figures(sums, duration_s) for name, sums in sorted(self._by_class.items())}


def _add(sums: _Sums, row: OutcomeRow) -> None:
    totals = sums.totals
    sums.requests += 1
    sums.statuses[str(row.status)] += 1
    for name in _ADDED:
        totals[name] += getattr(row, name)
    totals["compute_s"] += row.prefill_s + row.compute_s
    if row.status is not OutcomeStatus.OK or row.latency_s is None:
        return
    sums.met += row.met_deadline
    sums.latency.add(row.latency_s)
    totals["latency_s"] += row.latency_s
    totals["queue_s"] += row.queue_s
    totals["quality"] += row.quality
    totals["output_tokens"] += row.output_tokens
    totals["frames"] += row.frames
    sums.below_floor += row.quality < row.min_quality
    sums.tiers[row.tier] += 1
    if row.kind is TaskKind.LLM:
        if row.ttft_s is not None:
            sums.ttft.add(row.ttft_s)
        if row.tpot_s is not None:
            sums.tpot.add(row.tpot_s)


def _figures(sums: _Sums, duration_s: float) -> dict[str, float | None]:
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    totals, answered = sums.totals, sums.statuses[OutcomeStatus.OK]
    joules = totals["transmission_joules"] + totals["inference_joules"] + totals["idle_joules"]
    link_bytes = totals["up_bytes"] + totals["down_bytes"]
    figures |= {
        "requests": sums.requests,
        "answered": answered,
        "attainment": _ratio(sums.met, sums.requests),
        "goodput_per_s": _ratio(sums.met, duration_s),
        "output_tokens_per_s": _ratio(totals["output_tokens"], duration_s),
        "frames_per_s": _ratio(totals["frames"], duration_s),
        "answered_latency_mean_s": _ratio(totals["latency_s"], answered),
        "queue_mean_s": _ratio(totals["queue_s"], answered),
        "joules": joules,
        "joules_per_request": _ratio(joules, answered),
        "joules_per_met": _ratio(joules, sums.met),
        "link_bytes": link_bytes,
        "link_bytes_per_request": _ratio(link_bytes, sums.requests),
        "compute_s": totals["compute_s"],
        "compute_s_per_request": _ratio(totals["compute_s"], sums.requests),
        "quality": _ratio(totals["quality"], answered),
        "deadline_violations": sums.requests - sums.met,
        "quality_violations": sums.below_floor,
        "rejected": sums.statuses[OutcomeStatus.REJECTED],
        "failed": sums.statuses[OutcomeStatus.FAILED],
        "expired": sums.statuses[OutcomeStatus.DEADLINE_EXCEEDED],
        "edge_share": _ratio(sums.tiers[Tier.EDGE], answered),
    }
    figures |= {name: totals[name] for name in _ADDED}
    figures |= {f"{name}_per_request": _ratio(totals[name], answered) for name in _JOULES}
    for q in (50, 95, 99):
        figures[f"latency_p{q}_s"] = _percentile_s(sums.latency, q, sums.requests)
        figures[f"answered_latency_p{q}_s"] = _percentile_s(sums.latency, q, sums.latency.count)
        figures[f"ttft_p{q}_s"] = _percentile_s(sums.ttft, q, sums.ttft.count)
        figures[f"tpot_p{q}_s"] = _percentile_s(sums.tpot, q, sums.tpot.count)
    return figures


def _percentile_s(histogram: LogHistogram, q: float, count: int) -> float | None:
    """The `q`-th percentile of `count` values, those that the histogram does not hold being infinite."""
    if not count:
        return None
    rank = max(1, math.ceil(round(q / 100 * count, 9)))
    # Half a rank lower names the same value, and no rounding carries it past the next.
    return math.inf if rank > histogram.count else histogram.percentile_s(100 * (rank - 0.5) / histogram.count)


def _ratio(over: float | None, under: float) -> float | None:
    return over / under if over is not None and under else None
