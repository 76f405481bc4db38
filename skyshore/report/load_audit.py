"""Checks whether the client delivered the load of the schedule. A run that did not says so in its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from skyshore.report.request_record import RequestRecord
from skyshore.report.statistics import percentile
from skyshore.workload.load_statistics import LoadStatistics, load_statistics


class Verdict(StrEnum):
    """How far the delivered load can be trusted."""

    VALID = "VALID"
    DEGRADED = "DEGRADED"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: the value, the limits up to which it is VALID and DEGRADED, and the verdict."""

    check: str
    value: float
    valid_to: float
    degraded_to: float

    @property
    def verdict(self) -> Verdict:
        """The verdict; a value that could not be computed (nan) counts as VALID."""
        if math.isnan(self.value) or self.value <= self.valid_to:
            return Verdict.VALID
        return Verdict.DEGRADED if self.value <= self.degraded_to else Verdict.INVALID


@dataclass(frozen=True, slots=True)
class LoadAudit:
    """Intended load against delivered load."""

    intended: LoadStatistics
    delivered: LoadStatistics
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst finding."""
        found = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in (Verdict.INVALID, Verdict.DEGRADED) if verdict in found), Verdict.VALID)


def audit_load(records: Sequence[RequestRecord], duration_s: float, client_cpu_share: float) -> LoadAudit:
    """Judge all requests that were due within `duration_s`; `client_cpu_share` is 1.0 for one core fully used.

    Lag is compared with the tightest deadline of the run: a late client falsifies that one first.
    """
    sent = sorted(record.t_sent_s for record in records if record.t_sent_s is not None)
    intended = load_statistics([record.t_intended_s for record in records], duration_s)
    delivered = load_statistics(sent, max(duration_s, sent[-1] if sent else 0.0))
    tightest_s = min((record.deadline_s for record in records), default=1.0)
    lags = [record.lag_s for record in records if record.t_sent_s is not None]
    findings = (
        Finding("share never sent", 1 - len(sent) / len(records) if records else 0.0, 0.0, 0.0),
        Finding("p99 lag (s)", percentile(lags, 99), max(0.005, tightest_s / 100), max(0.05, tightest_s / 10)),
        Finding("rate error", _error(_slope([r.t_intended_s for r in records]), _slope(sent)), 0.01, 0.05),
        Finding("gap CV error", _error(intended.gap_cv, delivered.gap_cv), 0.05, 0.2),
        Finding("IDC error", _error(intended.idc_1s, delivered.idc_1s), 0.1, 0.4),
        Finding("client CPU (cores)", client_cpu_share, 0.7, 0.95),
    )
    return LoadAudit(intended, delivered, findings)


def _slope(times_s: Sequence[float]) -> float:
    span_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
    return (len(times_s) - 1) / span_s if span_s > 0 else math.nan


def _error(intended: float, delivered: float) -> float:
    """Relative error; below 1 (a dispersion of a regular load is near 0) the absolute one."""
    return abs(delivered - intended) / max(intended, 1.0) if not math.isnan(intended) else math.nan
