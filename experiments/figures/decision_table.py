"""One row a decision: what the policy saw, how it scored, what it chose, and what came of it. Streams to Parquet.

A row is written when its outcome is known, so memory holds only the decisions that are still open. A decision that was
taken back (its node died, another was made for the same task) or that has no outcome keeps its outcome columns null.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from experiments.figures.outcome_table import OutcomeRow
from skyshore.domain.placement import DecisionRecord

ROWS_IN_GROUP = 5_000

SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("decided_at_s", pa.float64(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("service_class", pa.string(), nullable=False),
        # Empty for a refusal.
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),
        # The arms that could have been chosen, and each one's score where the policy has scores.
        pa.field("arm_ids", pa.list_(pa.dictionary(pa.int32(), pa.string())), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        # What the policy looked at, in an order of its own.
        pa.field("features", pa.list_(pa.float64()), nullable=False),
        # What it was shown, for `skyshore evaluate`; see `skyshore.scheduling.logged_context`.
        pa.field("context", pa.string(), nullable=False),
        pa.field("status", pa.string()),
        pa.field("met_deadline", pa.bool_()),
        pa.field("latency_s", pa.float64()),
        pa.field("deadline_s", pa.float64()),
        pa.field("joules", pa.float64()),
        pa.field("link_bytes", pa.int64()),
        pa.field("quality", pa.float64()),
        pa.field("min_quality", pa.float64()),
    ]
)
"""Columns of `decisions.parquet`: those of `DecisionRecord`, then those of its outcome."""


class DecisionWriter:
    """Takes decisions and, later, outcomes; writes `path` one row group at a time. A context manager."""

    def __init__(self, path: Path, rows_in_group: int = ROWS_IN_GROUP) -> None:
        self._file = parquet.ParquetWriter(path, SCHEMA, compression="zstd")
        self._open: dict[str, DecisionRecord] = {}
        self._rows: list[dict[str, Any]] = []
        self._most = rows_in_group

    def decided(self, record: DecisionRecord) -> None:
        """A decision; a second one for the same task takes the first one back."""
        earlier = self._open.pop(record.task_id, None)
        if earlier is not None:
            self._write(earlier, None)
        self._open[record.task_id] = record

    def ended(self, row: OutcomeRow) -> None:
        """The outcome of the task's last decision; a task without one is passed over."""
        record = self._open.pop(row.request_id, None)
        if record is not None:
            self._write(record, row)

    def __enter__(self) -> DecisionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for record in self._open.values():
            self._write(record, None)
        self._flush()
        self._file.close()

    def _write(self, record: DecisionRecord, outcome: OutcomeRow | None) -> None:
        row: dict[str, Any] = {
            "task_id": record.task_id,
            "decided_at_s": record.decided_at_s,
            "policy": record.policy,
            "service_class": record.service_class,
            "chosen": record.chosen,
            "propensity": record.propensity,
            "arm_ids": record.arm_ids,
            "scores": record.scores,
            "features": record.features,
            "context": record.context,
        }
        if outcome is not None:
            row |= {
                "status": outcome.status,
                "met_deadline": outcome.met_deadline,
                "latency_s": outcome.latency_s,
                "deadline_s": outcome.deadline_s,
                "joules": outcome.joules,
                "link_bytes": outcome.up_bytes + outcome.down_bytes,
                "quality": outcome.quality,
                "min_quality": outcome.min_quality,
            }
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
            self._rows.clear()
