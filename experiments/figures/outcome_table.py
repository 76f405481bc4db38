"""One row a request: how it ended, when, where and at what price. Rows stream to Parquet in groups of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa
from pyarrow import parquet

from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

ROWS_IN_GROUP = 20_000


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """Times in seconds; latencies from the intended time of the request."""

    request_id: str
    kind: TaskKind
    service_class: str
    origin: str
    t_intended_s: float
    """Since the schedule's start."""
    deadline_s: float
    min_quality: float
    status: OutcomeStatus
    latency_s: float | None
    """To the last byte; None unless the request succeeded."""
    met_deadline: bool
    t_done_s: float | None = None
    """When it ended, well or not, since the schedule's start; None where nobody saw it end."""
    ttft_s: float | None = None
    """To the first token; None for video and for failures."""
    tpot_s: float | None = None
    """Per output token after the first."""
    gateway_s: float = 0.0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    compute_s: float = 0.0
    up_bytes: int = 0
    down_bytes: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    transmission_joules: float = 0.0
    inference_joules: float = 0.0
    idle_joules: float = 0.0
    """Its share of the power its node draws when idle."""
    energy_source: str = ""
    quality: float = 0.0
    node_id: str = ""
    """Where it ended; empty for a task that nobody took."""
    arm_id: str = ""
    tier: str = ""

    @property
    def joules(self) -> float:
        """Transmission, inference and idle share together."""
        return self.transmission_joules + self.inference_joules + self.idle_joules


RowSink = Callable[[OutcomeRow], None]

SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("service_class", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("t_intended_s", pa.float64(), nullable=False),
        pa.field("deadline_s", pa.float64(), nullable=False),
        pa.field("min_quality", pa.float64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("latency_s", pa.float64()),
        pa.field("met_deadline", pa.bool_(), nullable=False),
        pa.field("t_done_s", pa.float64()),
        pa.field("ttft_s", pa.float64()),
        pa.field("tpot_s", pa.float64()),
        pa.field("gateway_s", pa.float64(), nullable=False),
        pa.field("queue_s", pa.float64(), nullable=False),
        pa.field("prefill_s", pa.float64(), nullable=False),
        pa.field("compute_s", pa.float64(), nullable=False),
        pa.field("up_bytes", pa.int64(), nullable=False),
        pa.field("down_bytes", pa.int64(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("transmission_joules", pa.float64(), nullable=False),
        pa.field("inference_joules", pa.float64(), nullable=False),
        pa.field("idle_joules", pa.float64(), nullable=False),
        pa.field("energy_source", pa.string(), nullable=False),
        pa.field("quality", pa.float64(), nullable=False),
        pa.field("node_id", pa.string(), nullable=False),
        pa.field("arm_id", pa.string(), nullable=False),
        pa.field("tier", pa.string(), nullable=False),
    ]
)
"""Columns of `outcomes.parquet`, those of `OutcomeRow`."""


def row_of(arrival: Arrival, outcome: Outcome, tier: str) -> OutcomeRow:
    """A request and its outcome as one row; `tier` is that of the outcome's node."""
    worker, answered = outcome.worker, outcome.status is OutcomeStatus.OK
    ttft_s = outcome.ttft_s if answered and outcome.ttft_s > 0 else None
    tpot_s = None
    if ttft_s is not None and worker.output_tokens > 1:
        tpot_s = (outcome.latency_s - ttft_s) / (worker.output_tokens - 1)
    return OutcomeRow(
        request_id=arrival.request_id,
        kind=arrival.kind,
        service_class=arrival.service_class,
        origin=arrival.origin,
        t_intended_s=arrival.t_intended_s,
        deadline_s=arrival.deadline_s,
        min_quality=arrival.min_quality,
        status=outcome.status,
        latency_s=outcome.latency_s if answered else None,
        met_deadline=outcome.met_deadline,
        t_done_s=arrival.t_intended_s + outcome.latency_s,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        gateway_s=outcome.gateway_s,
        queue_s=worker.queue_s,
        prefill_s=worker.prefill_s,
        compute_s=worker.compute_s,
        up_bytes=outcome.up_bytes,
        down_bytes=outcome.down_bytes,
        prompt_tokens=worker.prompt_tokens,
        output_tokens=worker.output_tokens,
        frames=worker.frames,
        transmission_joules=outcome.transmission_joules,
        inference_joules=worker.inference_joules,
        idle_joules=worker.idle_joules,
        energy_source=worker.energy_source if answered else "",
        quality=outcome.quality if answered else 0.0,
        node_id=outcome.node_id,
        arm_id=outcome.arm_id,
        tier=tier,
    )


def table_of(rows: list[OutcomeRow]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


class OutcomeWriter:
    """A `RowSink` that writes `path`, one row group at a time; a context manager that closes the file."""

    def __init__(self, path: Path, rows_in_group: int = ROWS_IN_GROUP) -> None:
        self._file = parquet.ParquetWriter(path, SCHEMA, compression="zstd")
        self._rows: list[OutcomeRow] = []
        self._most = rows_in_group

    def __call__(self, row: OutcomeRow) -> None:
        """Take one row."""
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self._flush()

    def __enter__(self) -> OutcomeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(table_of(self._rows))
            self._rows.clear()
