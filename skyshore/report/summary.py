"""From request records to the figures of a replay's report, for a whole run and for each group of requests in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.report.distribution import ExactDistribution
from skyshore.report.figures import FigureTally
from skyshore.report.request_record import RequestRecord, in_json
from skyshore.report.statistics import bootstrap_interval, percentile

UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True, slots=True)
class Summary:
    """One group of requests."""

    group: str
    figures: Mapping[str, float | None]
    """By name, see `figures.FIGURES`; percentiles are exact."""
    attainment_low: float
    attainment_high: float
    """95 % interval by block bootstrap; not a number without requests."""
    latency_p95_low_s: float
    latency_p95_high_s: float
    sent_bytes: int
    received_bytes: int
    joules_by_source: dict[str, float]
    """By provenance: joules of different provenance are never added up in a table."""
    errors: dict[str, int]
    """Requests without an answer, by error code."""

    def to_json(self) -> dict[str, object]:
        """Nested object without infinities or not-a-numbers (see `in_json`)."""
        return {
            name: {key: in_json(each) for key, each in value.items()} if isinstance(value, dict) else in_json(value)
            for name, value in asdict(self).items()
        }


def summarise(group: str, records: Sequence[RequestRecord], duration_s: float, seed: int = 0) -> Summary:
    """Figures of `records`, given in order of intended time; requests that the user cancelled are left out.

    Rates are over `duration_s`, the length of the schedule that was played, not the time until the last answer.
    """
    counted = [record for record in records if record.status is not OutcomeStatus.CANCELLED]
    tally = FigureTally(ExactDistribution)
    for record in counted:
        tally(record)
    rng = np.random.default_rng(seed)
    met = [float(record.met_deadline) for record in counted]
    attainment_low, attainment_high = bootstrap_interval(met, lambda values: float(values.mean()), rng)
    latencies = [record.latency_s for record in counted]
    p95_low_s, p95_high_s = bootstrap_interval(latencies, lambda values: percentile(values, 95), rng)
    return Summary(
        group=group,
        figures=tally.figures(duration_s),
        attainment_low=attainment_low,
        attainment_high=attainment_high,
        latency_p95_low_s=p95_low_s,
        latency_p95_high_s=p95_high_s,
        sent_bytes=sum(record.sent_bytes for record in counted),
        received_bytes=sum(record.received_bytes for record in counted),
        joules_by_source=_joules(counted),
        errors=_errors(counted),
    )


def summarise_by(
    key: Callable[[RequestRecord], str], records: Sequence[RequestRecord], duration_s: float
) -> list[Summary]:
    """One summary for each value of `key`, in order of the value; records with an empty key belong to no group."""
    groups: defaultdict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        if group := key(record):
            groups[group].append(record)
    return [summarise(group, groups[group], duration_s) for group in sorted(groups)]


def _joules(records: Sequence[RequestRecord]) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for record in records:
        if record.joules > 0:
            totals[record.worker.energy_source or UNKNOWN_SOURCE] += record.joules
    return dict(sorted(totals.items()))


def _errors(records: Sequence[RequestRecord]) -> dict[str, int]:
    codes = (record.error_code or str(record.status) for record in records if not record.answered)
    return dict(sorted(Counter(codes).items()))
