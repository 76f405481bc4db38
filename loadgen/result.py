"""The outcome of a replay: figures, the audit of the client itself, and the rows behind them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from loadgen.pacing import LoadRun
from skyshore.report.load_audit import LoadAudit, audit_load
from skyshore.report.request_record import RequestRecord, in_json
from skyshore.report.summary import Summary, summarise, summarise_by
from skyshore.report.tables import Table, audit_table, cost_table, latency_table
from skyshore.workload.schedule import Schedule

FORMAT = "skyshore.replay/2"


@dataclass(frozen=True)
class ReplayResult:
    """Result of playing a schedule. An interrupted one covers the requests that were due until then."""

    schedule: Schedule
    url: str
    policy: str
    started_at_s: float
    """Seconds since the epoch."""
    played_s: float
    interrupted: bool
    client_cpu_share: float
    records: tuple[RequestRecord, ...]
    audit: LoadAudit
    whole: Summary
    groups: Mapping[str, Sequence[Summary]]
    """By `kind`, `class` and `node`."""

    @classmethod
    def of(cls, schedule: Schedule, run: LoadRun, *, url: str, policy: str, started_at_s: float) -> ReplayResult:
        """Add up a run that has ended."""
        records = tuple(run.records())
        end_s = schedule.duration_s if run.stopped_at_s is None else min(run.stopped_at_s, schedule.duration_s)
        played_s = max(1e-3, end_s)  # so that rates stay finite for a run stopped before it began
        groups = {
            "kind": summarise_by(lambda record: record.kind, records, played_s),
            "class": summarise_by(lambda record: record.service_class, records, played_s),
            "node": summarise_by(lambda record: record.outcome.node_id, records, played_s),
        }
        return cls(
            schedule=schedule,
            url=url,
            policy=policy,
            started_at_s=started_at_s,
            played_s=played_s,
            interrupted=run.stopped_at_s is not None,
            client_cpu_share=run.client_cpu_share,
            records=records,
            audit=audit_load(records, played_s, run.client_cpu_share),
            whole=summarise("all", records, played_s),
            groups=groups,
        )

    def to_json(self) -> dict[str, object]:
        """Everything but the rows."""
        return {
            "format": FORMAT,
            "version": metadata.version("skyshore"),
            "verdict": self.audit.verdict,
            "interrupted": self.interrupted,
            "schedule": {
                "sha256": self.schedule.sha256,
                "seed": self.schedule.seed,
                "duration_s": self.schedule.duration_s,
                "requests": len(self.schedule.arrivals),
                "provenance": self.schedule.provenance,
            },
            "url": self.url,
            "policy": self.policy,
            "started_at_s": self.started_at_s,
            "played_s": self.played_s,
            "client": {
                "cpu_cores": self.client_cpu_share,
                "host": platform.node(),
                "python": platform.python_version(),
            },
            "audit": {
                "intended": _plain(asdict(self.audit.intended)),
                "delivered": _plain(asdict(self.audit.delivered)),
                "findings": [{**_plain(asdict(f)), "verdict": f.verdict} for f in self.audit.findings],
            },
            "all": self.whole.to_json(),
            **{f"by_{name}": [summary.to_json() for summary in group] for name, group in self.groups.items()},
        }

    def write(self, path: Path) -> Path:
        """Write `path` and, beside it, one line per request; returns the path of the lines."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        rows = path.with_suffix(".requests.jsonl")
        with rows.open("w", encoding="utf-8") as file:
            for record in self.records:
                file.write(json.dumps(_plain(record.to_row()), allow_nan=False) + "\n")
        return rows

    def tables(self) -> list[Table]:
        """Tables for a terminal: the groups one below the other, then the audit."""
        state = f"interrupted after {self.played_s:.1f} s" if self.interrupted else f"{self.played_s:g} s"
        title = f"{state} · policy {self.policy} · schedule {self.schedule.sha256[:12]}"
        return [
            latency_table(title, self.whole, self.groups),
            cost_table(self.whole, self.groups),
            audit_table(self.audit),
        ]


def _plain(figures: Mapping[str, object]) -> dict[str, object]:
    return {name: in_json(value) for name, value in figures.items()}
