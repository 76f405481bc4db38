"""One row per request: how it ended, when, where and at what cost. Rows stream to Parquet in groups of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import get_type_hints

import pyarrow as pa
from pyarrow import parquet

from skyshore.domain.outcome import Outcome, WorkerOutcome
from skyshore.report.batches import RecordBatches
from skyshore.report.request_record import COLUMNS, RequestRecord

ROWS_IN_GROUP = 20_000
UNKNOWN = ("latency_s", "t_done_s", "ttft_s", "tpot_s", "t_sent_s")
"""Columns that may be empty."""

RecordSink = Callable[[RequestRecord], None]


def _fields() -> Iterator[pa.Field]:
    types = get_type_hints(RequestRecord) | get_type_hints(Outcome) | get_type_hints(WorkerOutcome)
    arrow = {int: pa.int64(), bool: pa.bool_(), float: pa.float64()}
    for name in COLUMNS:
        declared = bool if name == "met_deadline" else float if name in UNKNOWN else types[name]
        yield pa.field(name, arrow.get(declared, pa.string()), nullable=name in UNKNOWN)


SCHEMA = pa.schema(_fields())
"""Columns of `outcomes.parquet`, those of `RequestRecord.to_row`."""


class OutcomeWriter(RecordBatches):
    """A `RecordSink` that writes `path`, one row group at a time; a context manager that closes the file."""

    def __init__(self, path: Path, rows_in_group: int = ROWS_IN_GROUP) -> None:
        super().__init__(rows_in_group)
        self._file = parquet.ParquetWriter(path, SCHEMA, compression="zstd")

    def __enter__(self) -> OutcomeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.flush()
        self._file.close()

    def _take(self, records: Sequence[RequestRecord]) -> None:
        columns = zip(*(record.to_row().values() for record in records), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))


def read_records(path: Path) -> list[RequestRecord]:
    """The records of an `outcomes.parquet`."""
    return [RequestRecord.from_row(row) for row in parquet.read_table(path).to_pylist()]
