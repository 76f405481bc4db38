"""The figures of a run: one definition of each, for simulations, live runs, replays and comparisons.

Which requests count: every request that was due, except those that the user cancelled. *Answers* are the requests whose
whole answer came (status `ok`), in time or late. *Met* are the answers that came within their deadline.

How failures count: `latency_p…` are over all requests, and a request without an answer is infinitely late. Figures of
answers, of first tokens (TTFT) and of output tokens (TPOT) leave requests without an answer out. Joules, bytes and
compute time are those of all requests, failed ones too.

Percentiles: the nearest rank (`statistics.nearest_rank`), never an interpolation. A distribution that keeps every value
gives it exactly, a histogram within half a percent (`distribution.STEP`).

Rates are over the duration of the run. A figure without anything to measure it on is None.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

import numpy as np

from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.report.batches import RecordBatches
from skyshore.report.distribution import Distribution, LogHistogram
from skyshore.report.request_record import RequestRecord
from skyshore.report.statistics import Values

BATCH = 512
"""Records that a tally keeps before it adds them up."""

Value = Callable[["Sums", float], float | None]
"""A figure from what was added up and the duration of the run in seconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure is called in tables, which way is better, and its definition."""

    title: str
    better: Literal["more", "less", ""] = ""
    value: Value | None = None
    """None for a figure of a whole run, which no request carries a part of."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Sum of a field of the records; with `per`, divided by that.

    Per answer of all requests: the answers have to pay for the work of requests that failed.
    """

    name: str
    """Path from the record to the field."""
    of: Literal["requests", "answers"] = "requests"
    per: Literal["", "request", "answer", "second"] = ""

    def __call__(self, sums: Sums, duration_s: float) -> float | None:
        """The figure."""
        value = (sums.total if self.of == "requests" else sums.answer_total)(self.name)
        under = {"": 1.0, "request": sums.requests, "answer": sums.answers, "second": duration_s}[self.per]
        return _ratio(value, under)


def ended(status: OutcomeStatus) -> Value:
    """Number of requests that ended so."""
    return lambda sums, _: sums.statuses[status]


def percentile_of(name: Literal["latency", "ttft", "tpot"], q: float) -> Value:
    """Percentile over the values that there are."""

    def value(sums: Sums, _: float) -> float | None:
        values: Distribution = getattr(sums, name)
        return values.percentile_s(q) if values.count else None

    return value


def latency_percentile(q: float) -> Value:
    """Percentile of the latency over all requests, those without an answer being infinitely late."""
    return lambda sums, _: sums.latency.percentile_s(q, of=sums.requests) if sums.requests else None


FIGURES: Mapping[str, Figure] = {
    "requests": Figure("requests due", "", lambda sums, _: sums.requests),
    "answered": Figure("requests answered", "more", lambda sums, _: sums.answers),
    "attainment": Figure("deadlines met, share of all requests", "more", lambda s, _: _ratio(s.met, s.requests)),
    "goodput_per_s": Figure("requests in time per second", "more", lambda s, duration_s: _ratio(s.met, duration_s)),
    "output_tokens_per_s": Figure("tokens per second", "more", Sum("worker.output_tokens", "answers", per="second")),
    "frames_per_s": Figure("frames per second", "more", Sum("worker.frames", "answers", per="second")),
    "latency_p50_s": Figure("latency p50", "less", latency_percentile(50)),
    "latency_p95_s": Figure("latency p95", "less", latency_percentile(95)),
    "latency_p99_s": Figure("latency p99", "less", latency_percentile(99)),
    "answered_latency_mean_s": Figure("latency of answers, mean", "less", Sum("latency_s", "answers", per="answer")),
    "answered_latency_p50_s": Figure("latency of answers, p50", "less", percentile_of("latency", 50)),
    "answered_latency_p95_s": Figure("latency of answers, p95", "less", percentile_of("latency", 95)),
    "answered_latency_p99_s": Figure("latency of answers, p99", "less", percentile_of("latency", 99)),
    "ttft_p50_s": Figure("TTFT p50", "less", percentile_of("ttft", 50)),
    "ttft_p95_s": Figure("TTFT p95", "less", percentile_of("ttft", 95)),
    "ttft_p99_s": Figure("TTFT p99", "less", percentile_of("ttft", 99)),
    "tpot_p50_s": Figure("TPOT p50", "less", percentile_of("tpot", 50)),
    "tpot_p95_s": Figure("TPOT p95", "less", percentile_of("tpot", 95)),
    "tpot_p99_s": Figure("TPOT p99", "less", percentile_of("tpot", 99)),
    "queue_mean_s": Figure("queueing, mean", "less", Sum("worker.queue_s", "answers", per="answer")),
    # Charged to requests.
    "transmission_joules": Figure("joules on links", "less", Sum("outcome.transmission_joules")),
    "inference_joules": Figure("joules of inference", "less", Sum("worker.inference_joules")),
    "idle_joules": Figure("joules of idle power, share of requests", "less", Sum("worker.idle_joules")),
    "joules": Figure("joules charged to requests", "less", lambda sums, _: sums.joules),
    "joules_per_request": Figure("joules per answered request", "less", lambda s, _: _ratio(s.joules, s.answers)),
    "transmission_joules_per_request": Figure(
        "of these, on links", "less", Sum("outcome.transmission_joules", per="answer")
    ),
    "inference_joules_per_request": Figure("of these, inference", "less", Sum("worker.inference_joules", per="answer")),
    "idle_joules_per_request": Figure("of these, share of idle power", "less", Sum("worker.idle_joules", per="answer")),
    "joules_per_met": Figure("joules per deadline met", "less", lambda sums, _: _ratio(sums.joules, sums.met)),
    # All that the nodes drew, also for work thrown away and while idle, plus links.
    "fleet_joules": Figure("joules of the fleet", "less"),
    "fleet_joules_per_met": Figure("joules of the fleet per deadline met", "less"),
    "up_bytes": Figure("bytes to nodes", "less", Sum("outcome.up_bytes")),
    "down_bytes": Figure("bytes from nodes", "less", Sum("outcome.down_bytes")),
    "link_bytes": Figure("bytes on links", "less", Sum("link_bytes")),
    "link_bytes_per_request": Figure("bytes on links per request", "less", Sum("link_bytes", per="request")),
    "compute_s": Figure("seconds of compute", "less", Sum("busy_s")),
    "compute_s_per_request": Figure("seconds of compute per request", "less", Sum("busy_s", per="request")),
    "quality": Figure("quality, mean of answers", "more", Sum("quality", "answers", per="answer")),
    "deadline_violations": Figure("requests not answered in time", "less", lambda sums, _: sums.requests - sums.met),
    "quality_violations": Figure("answers below the quality floor", "less", lambda sums, _: sums.below_floor),
    "rejected": Figure("requests refused", "less", ended(OutcomeStatus.REJECTED)),
    "failed": Figure("requests failed", "less", ended(OutcomeStatus.FAILED)),
    "expired": Figure("requests past their deadline", "less", ended(OutcomeStatus.DEADLINE_EXCEEDED)),
    "edge_share": Figure("share of answers from the edge", "", lambda s, _: _ratio(s.tiers[Tier.EDGE], s.answers)),
    "met_bound": Figure("upper bound on deadlines met, by any schedule"),
    # As shares of all requests; below zero for a policy that did better than the reference.
    "regret_fixed": Figure("deadlines met by the best fixed arm minus deadlines met", "less"),
    "regret_oracle": Figure("deadlines met by the oracle schedule minus deadlines met", "less"),
    "regret_bound": Figure("upper bound on deadlines met minus deadlines met", "less"),
}
"""Every name a run's figures may have, in reading order. Units are in the names; shares are in 0..1."""

_JOULES = ("outcome.transmission_joules", "worker.inference_joules", "worker.idle_joules", "unsplit_joules")
_SUMS = [figure.value for figure in FIGURES.values() if isinstance(figure.value, Sum)]
_TOTALS = tuple(sorted({*_JOULES, *(each.name for each in _SUMS if each.of == "requests")}))
_OF_ANSWERS = tuple(sorted({each.name for each in _SUMS if each.of == "answers"}))
_totals_of = attrgetter(*_TOTALS)
_answer_values_of = attrgetter(*_OF_ANSWERS)


@dataclass(slots=True)
class Sums:
    """What is added up over requests."""

    latency: Distribution
    """Of answers; likewise the other two, which are of language-model requests only."""
    ttft: Distribution
    tpot: Distribution
    requests: int = 0
    met: int = 0
    below_floor: int = 0
    """Answers below the quality that was asked for."""
    statuses: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    """Answers by tier."""
    totals: Values = field(default_factory=lambda: np.zeros(len(_TOTALS)))
    """Sums over all requests, in the order of `_TOTALS`."""
    answer_totals: Values = field(default_factory=lambda: np.zeros(len(_OF_ANSWERS)))
    """Sums over the answers, in the order of `_OF_ANSWERS`."""

    @property
    def answers(self) -> int:
        """Requests that were answered."""
        return self.statuses[OutcomeStatus.OK]

    @property
    def joules(self) -> float:
        """Charged to requests, whatever the cause."""
        return sum(self.total(name) for name in _JOULES)

    def total(self, name: str) -> float:
        """Sum of a field over all requests."""
        return float(self.totals[_TOTALS.index(name)])

    def answer_total(self, name: str) -> float:
        """Sum of a field over the answers."""
        return float(self.answer_totals[_OF_ANSWERS.index(name)])

    def add(self, records: Sequence[RequestRecord]) -> None:
        """Count requests."""
        answers = [record for record in records if record.answered]
        self.requests += len(records)
        self.statuses.update(record.outcome.status for record in records)
        self.totals = _added(self.totals, [_totals_of(record) for record in records])
        self.met += sum(record.met_deadline for record in answers)
        self.below_floor += sum(record.quality < record.min_quality for record in answers)
        self.tiers.update(record.tier for record in answers)
        self.answer_totals = _added(self.answer_totals, [_answer_values_of(record) for record in answers])
        self.latency.add([record.latency_s for record in answers])
        chats = [record for record in answers if record.kind is TaskKind.LLM]
        self.ttft.add([value for record in chats if (value := record.ttft_s) is not None])
        self.tpot.add([value for record in chats if (value := record.tpot_s) is not None])

    def figures(self, duration_s: float) -> dict[str, float | None]:
        """All of `FIGURES`, by name."""
        return {name: figure.value and figure.value(self, duration_s) for name, figure in FIGURES.items()}


class FigureTally(RecordBatches):
    """Adds records up and forgets them; requests that the user cancelled are left out.

    Memory does not grow with the run, unless `distribution` is one that keeps every value.
    """

    def __init__(self, distribution: Callable[[], Distribution] = LogHistogram) -> None:
        super().__init__(BATCH)
        self._distribution = distribution
        self._all = self._sums()
        self._by_class: defaultdict[str, Sums] = defaultdict(self._sums)
        self._energy_sources: set[str] = set()

    @property
    def statuses(self) -> dict[str, int]:
        """Requests by how they ended."""
        self.flush()
        return {str(status): count for status, count in sorted(self._all.statuses.items())}

    @property
    def energy_sources(self) -> tuple[str, ...]:
        """Provenance of the joules, each word once."""
        self.flush()
        return tuple(sorted(self._energy_sources - {""}))

    def figures(self, duration_s: float, *, fleet_joules: float | None = None) -> dict[str, float | None]:
        """All of `FIGURES`, by name. Rates are over `duration_s`.

        `fleet_joules`: all that the nodes drew, links not included.
        """
        self.flush()
        figures = self._all.figures(duration_s)
        if fleet_joules is not None:
            figures["fleet_joules"] = fleet_joules + self._all.total("outcome.transmission_joules")
            figures["fleet_joules_per_met"] = _ratio(figures["fleet_joules"], self._all.met)
        return figures

    def by_class(self, duration_s: float) -> dict[str, dict[str, float | None]]:
        """The same for each service class."""
        self.flush()
        return {name: sums.figures(duration_s) for name, sums in sorted(self._by_class.items())}

    def _take(self, records: Sequence[RequestRecord]) -> None:
        counted = [record for record in records if record.status is not OutcomeStatus.CANCELLED]
        self._energy_sources.update(record.energy_source for record in counted)
        by_class: defaultdict[str, list[RequestRecord]] = defaultdict(list)
        for record in counted:
            by_class[record.service_class].append(record)
        self._all.add(counted)
        for name, of_class in by_class.items():
            self._by_class[name].add(of_class)

    def _sums(self) -> Sums:
        return Sums(self._distribution(), self._distribution(), self._distribution())


def _added(totals: Values, rows: Sequence[tuple[float, ...]]) -> Values:
    """`totals`, shape (k,), with each of the rows added in turn, so that the sum does not depend on the batches."""
    summed: Values = np.add.accumulate(np.array([totals, *rows]), axis=0)[-1]
    return summed


def _ratio(over: float | None, under: float) -> float | None:
    return over / under if over is not None and under else None
