"""From request records to the figures of a report, for a whole run and for each group of requests in it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.report.request_record import RequestRecord, in_json
from skyshore.report.statistics import bootstrap_interval, percentile

UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds; infinite where so many requests failed."""

    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One group of requests. Shares and rates count every request that was due, failed ones too."""

    group: str
    requests: int
    succeeded: int
    attainment: float
    """Share of requests that met their deadline."""
    attainment_low: float
    attainment_high: float
    """95 % interval by block bootstrap."""
    goodput_per_s: float
    latency: Percentiles
    latency_p95_low_s: float
    latency_p95_high_s: float
    ttft: Percentiles
    tpot: Percentiles
    output_tokens_per_s: float
    frames_per_s: float
    sent_bytes: int
    received_bytes: int
    link_bytes: int
    joules: dict[str, float]
    """By provenance: figures of different provenance are never added up."""
    errors: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """Nested object without infinities or not-a-numbers (see `in_json`)."""
        return {
            name: {key: in_json(each) for key, each in value.items()} if isinstance(value, dict) else in_json(value)
            for name, value in asdict(self).items()
        }


def summarise(group: str, records: Sequence[RequestRecord], duration_s: float, seed: int = 0) -> Summary:
    """Figures of `records`, given in order of intended time; requests cancelled by the user are left out.

    Rates are over `duration_s`, the length of the schedule that was played, not the time until the last answer.
    """
    counted = [record for record in records if record.status is not OutcomeStatus.CANCELLED]
    latencies = [record.latency_s for record in counted]
    met = [float(record.met_deadline) for record in counted]
    llm = [record for record in counted if record.kind is TaskKind.LLM]
    rng = np.random.default_rng(seed)
    attainment_low, attainment_high = bootstrap_interval(met, lambda values: float(values.mean()), rng)
    p95_low_s, p95_high_s = bootstrap_interval(latencies, lambda values: percentile(values, 95), rng)
    return Summary(
        group=group,
        requests=len(counted),
        succeeded=sum(record.status is OutcomeStatus.OK for record in counted),
        attainment=sum(met) / len(met) if met else math.nan,
        attainment_low=attainment_low,
        attainment_high=attainment_high,
        goodput_per_s=sum(met) / duration_s,
        latency=_percentiles(latencies),
        latency_p95_low_s=p95_low_s,
        latency_p95_high_s=p95_high_s,
        ttft=_percentiles([record.ttft_s for record in llm]),
        tpot=_percentiles([tpot for record in llm if (tpot := record.tpot_s) is not None]),
        output_tokens_per_s=sum(record.output_tokens for record in counted) / duration_s,
        frames_per_s=sum(record.frames for record in counted if record.status is OutcomeStatus.OK) / duration_s,
        sent_bytes=sum(record.sent_bytes for record in counted),
        received_bytes=sum(record.received_bytes for record in counted),
        link_bytes=sum(record.link_bytes for record in counted),
        joules=_joules(counted),
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


def _percentiles(values: Sequence[float]) -> Percentiles:
    return Percentiles(percentile(values, 50), percentile(values, 95), percentile(values, 99))


def _joules(records: Sequence[RequestRecord]) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for record in records:
        if record.joules > 0:
            totals[record.energy_source or UNKNOWN_SOURCE] += record.joules
    return dict(sorted(totals.items()))


def _errors(records: Sequence[RequestRecord]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for record in records:
        if record.status is not OutcomeStatus.OK:
            counts[record.error_code or str(record.status)] += 1
    return dict(sorted(counts.items()))
