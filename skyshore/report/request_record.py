"""One request of a run: what was asked for, how it ended, what the client saw. The row behind every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeVar

from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

T = TypeVar("T")


@dataclass(slots=True)
class RequestRecord:
    """A request and its outcome. The same type for a simulation, a live run and a replay.

    Latencies run from the intended time of the request to the last byte at the client. Times named `t_` are seconds
    since the start of the schedule.
    """

    request_id: str
    kind: TaskKind
    service_class: str
    origin: str
    t_intended_s: float
    deadline_s: float
    min_quality: float
    outcome: Outcome
    """Its `latency_s` is infinite while the request has not ended."""
    tier: str = ""
    """Tier of the outcome's node; empty for a request that no node took."""
    t_sent_s: float | None = None
    """When the client sent it; None for a request that was never sent, and in a simulation."""
    policy: str = ""
    error_code: str = ""
    sent_bytes: int = 0
    """Request as it left the client."""
    received_bytes: int = 0
    unsplit_joules: float = 0.0
    """Joules charged to the request that a client knows only as a sum, not by cause."""

    @classmethod
    def of(cls, arrival: Arrival, outcome: Outcome, tier: str = "") -> RequestRecord:
        """The record of a request of a schedule."""
        return cls(**dict(zip(_ASKED, _asked(arrival), strict=True)), outcome=outcome, tier=tier)

    @property
    def worker(self) -> WorkerOutcome:
        """The part that the node measured."""
        return self.outcome.worker

    @property
    def status(self) -> OutcomeStatus:
        """How it ended."""
        return self.outcome.status

    @property
    def answered(self) -> bool:
        """Whether the whole answer came, in time or late."""
        return self.outcome.status is OutcomeStatus.OK

    @property
    def latency_s(self) -> float:
        """Intended time to the last byte; infinite unless the request was answered."""
        return self.outcome.latency_s if self.answered else math.inf

    @property
    def met_deadline(self) -> bool:
        """Whether the whole answer came within the deadline, counted from the intended time."""
        return self.outcome.met_deadline

    @property
    def t_done_s(self) -> float | None:
        """When it ended, answered or not; None if it had not ended when the run did."""
        end_s = self.t_intended_s + self.outcome.latency_s
        return end_s if math.isfinite(end_s) else None

    @property
    def lag_s(self) -> float:
        """How late the client sent it; infinite for a request that was never sent."""
        return math.inf if self.t_sent_s is None else self.t_sent_s - self.t_intended_s

    @property
    def ttft_s(self) -> float | None:
        """Intended time to the first token; None for video and for a request that was not answered."""
        return self.outcome.ttft_s if self.answered and self.outcome.ttft_s > 0 else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None where there is no TTFT or a single token."""
        tokens, ttft_s = self.worker.output_tokens, self.ttft_s
        return None if ttft_s is None or tokens < 2 else (self.outcome.latency_s - ttft_s) / (tokens - 1)

    @property
    def busy_s(self) -> float:
        """Time that a node worked on it."""
        return self.worker.prefill_s + self.worker.compute_s

    @property
    def link_bytes(self) -> int:
        """Both ways between gateway and node."""
        return self.outcome.up_bytes + self.outcome.down_bytes

    @property
    def joules(self) -> float:
        """Joules charged to the request: transmission, inference and its share of idle power."""
        return self.outcome.joules + self.unsplit_joules

    @property
    def quality(self) -> float:
        """Quality of the answer, in 0..1; zero without an answer."""
        return self.outcome.quality if self.answered else 0.0

    @property
    def energy_source(self) -> str:
        """Provenance of the joules; empty without an answer."""
        return self.worker.energy_source if self.answered else ""

    def to_row(self) -> dict[str, Any]:
        """One flat object with all measured values, each under the name of its field; what is not known is None."""
        return dict(zip(COLUMNS, _cells(self), strict=True)) | {
            "latency_s": self.outcome.latency_s if self.answered else None
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RequestRecord:
        """Read what `to_row` made, or what an earlier version made that measured less.

        Raises:
            KeyError, ValueError: the row is of something else.
        """
        end_s = math.inf if row["t_done_s"] is None else row["t_done_s"]
        latency_s = end_s - row["t_intended_s"] if row["latency_s"] is None else row["latency_s"]
        known = {"task_id": row["request_id"], "finished_at_s": end_s, **row}
        known |= {"kind": TaskKind(row["kind"]), "status": OutcomeStatus(row["status"])}
        known |= {"latency_s": latency_s, "ttft_s": row["ttft_s"] or 0.0}
        worker = WorkerOutcome(**{name: known[name] for name in _WORKER if name in known})
        outcome = Outcome(**{name: known[name] for name in _OUTCOME if name in known}, worker=worker)
        return cls(**{name: known[name] for name in _OWN if name in known}, outcome=outcome)


def in_json(value: T) -> T | str | None:
    """JSON has no infinities: infinite becomes `inf` (float('inf') reads it), not-a-number becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


_OWN = tuple(field.name for field in fields(RequestRecord) if field.name != "outcome")
_OUTCOME = tuple(field.name for field in fields(Outcome) if field.name != "worker")
_WORKER = tuple(field.name for field in fields(WorkerOutcome))
_ASKED = _OWN[: _OWN.index("tier")]
_asked = attrgetter(*_ASKED)
_DERIVED = ("latency_s", "met_deadline", "t_done_s", "ttft_s", "tpot_s", "quality", "energy_source")
_PATHS = {
    **{name: f"outcome.worker.{name}" for name in _WORKER},
    **{name: f"outcome.{name}" for name in _OUTCOME},
    **{name: name for name in (*_OWN, *_DERIVED)},
}
_cells = attrgetter(*_PATHS.values())
COLUMNS = tuple(_PATHS)
"""Names in a row: fields of the record, of its outcome and of what the node measured, and what follows from them."""
