"""One row per decision: what the policy saw, its scores, its choice and the outcome. Streams to Parquet.

A row is written when its outcome is known, so memory holds only the decisions that are still open. A decision without
an outcome, or one that another decision for the same task replaced (its node died), has null outcome columns.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from skyshore.domain.placement import DecisionRecord
from skyshore.report.request_record import RequestRecord

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
        # The policy's features, in its own order.
        pa.field("features", pa.list_(pa.float64()), nullable=False),
        # The context that the policy got, for `skyshore evaluate`; see `skyshore.scheduling.logged_context`.
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
"""Columns of `decisions.parquet`: fields of `DecisionRecord`, then those of the request's record."""

_OF_DECISION = tuple(SCHEMA.names[: SCHEMA.names.index("status")])
_OF_OUTCOME = tuple(SCHEMA.names[SCHEMA.names.index("status") :])


class DecisionWriter:
    """Takes decisions and, later, outcomes; writes `path` one row group at a time. A context manager."""

    def __init__(self, path: Path, rows_in_group: int = ROWS_IN_GROUP) -> None:
        self._file = parquet.ParquetWriter(path, SCHEMA, compression="zstd")
        self._open: dict[str, DecisionRecord] = {}
        self._rows: list[dict[str, Any]] = []
        self._most = rows_in_group

    def decided(self, decision: DecisionRecord) -> None:
        """Take a decision; a second one for the same task cancels the first one."""
        earlier = self._open.pop(decision.task_id, None)
        if earlier is not None:
            self._write(earlier, None)
        self._open[decision.task_id] = decision

    def ended(self, record: RequestRecord) -> None:
        """Take the outcome of the task's last decision; a task without a decision is ignored."""
        decision = self._open.pop(record.request_id, None)
        if decision is not None:
            self._write(decision, record)

    def __enter__(self) -> DecisionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for decision in self._open.values():
            self._write(decision, None)
        self._flush()
        self._file.close()

    def _write(self, decision: DecisionRecord, record: RequestRecord | None) -> None:
        row = {name: getattr(decision, name) for name in _OF_DECISION}
        if record is not None:
            row |= {name: getattr(record, name) for name in _OF_OUTCOME}
            row["latency_s"] = record.latency_s if record.answered else None
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
            self._rows.clear()
