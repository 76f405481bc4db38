"""Records of the scheduler's state: the nodes, arms, tasks and attempts that all rules work on.

One description serves both forms of a kernel. For machine code the rows are a numpy structured array. For plain Python
they are a list of objects with the same fields, because reading one field of a numpy record takes a microsecond.
Kernels write `nodes[i].own += 1.0` in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Record = Any
"""One row, seen as an object with the fields as attributes."""
Records = Any
"""Rows: a structured array, or a list of objects."""
Integers = Any
"""int64 array of one or more dimensions, or (nested) lists. Index it as `a[i][j]`."""
Floats = Any
"""float64 array of one or more dimensions, or (nested) lists. Index it as `a[i][j]`."""

NONE = -1
LLM, VIDEO_DETECT, VIDEO_CLASSIFY = 0, 1, 2
"""Kinds of task; the order is that of `TaskKind`."""
KINDS = 3
OK, FAILED, REJECTED, EXPIRED, CANCELLED = range(5)
"""How an attempt ended; `STATUSES` in `skyshore.policies.kernel_policy` names them."""
MOST_GROUPS = 64
"""Largest number of service classes with a group of their own. Further classes share the last group, so that a caller
cannot make tables grow without bound."""
MOST_TRIED = 16
"""Nodes that one task can avoid; of more, the last ones count."""


def dtype_of(floats: str, integers: str = "", *more: tuple[str, str, tuple[int, ...]]) -> np.dtype[np.void]:
    """A record type from the names of its float64 and int64 fields, and subarrays. A name may be given twice."""
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]]
    fields = [(name, "f8") for name in dict.fromkeys(floats.split())]
    return np.dtype([*fields, *((name, "i8") for name in dict.fromkeys(integers.split())), *more], align=True)


NODE = dtype_of(
    # load: tasks of ours, tasks that others sent, seconds of our work, rate our tasks need
    "own foreign backlog_s reserved_bytes_per_s capacity kv_used peak last_peak "
    # link: infinite rate where unknown
    "bytes_per_s rtt_s joules_per_byte guess_bytes_per_s guess_rtt_s guess_joules_per_byte",
    "open draining guessing present",
)
"""A node as the scheduler sees it. `open`: it takes another task. `guessing`: its link has not been measured."""
ARM = dtype_of(
    "quality busy_watts context_tokens prefill_s_per_token decode_s_per_token frame_s stride bytes_per_frame slots",
    "node kind model is_cloud slot engine",
)
"""An arm. `slot` and `engine` are the numbers that the policy in force gave to it and to the engine behind it."""
DEMAND_FIELDS = "now_s waited_s remaining_s deadline_s min_quality expected_tokens input_bytes"
DEMAND_INTEGERS = "kind group model prompt_tokens frames task serial attempt tries"
DEMAND = dtype_of(
    DEMAND_FIELDS,
    DEMAND_INTEGERS,
    ("tried", "i8", (MOST_TRIED,)),
)
"""A task to be placed. `expected_tokens` are those of its answer. `tried` holds `tries` numbers of nodes to avoid.
`task` numbers the tasks under way and is used again; `serial` is not. `model` is NONE for any."""
ESTIMATE_FIELDS = (
    "transmission_s queue_s service_s latency_s joules up_bytes load capacity kv_used up_bytes_per_s "
    "reserved_bytes_per_s quality slots spare_share"
)
ESTIMATE = dtype_of(ESTIMATE_FIELDS, "arm row node is_cloud slot engine")
"""What a task would cost on one arm, which is `row` of its kind's table. `spare_share` is the slack of the node's
resources (C2 and C3 of PerLLM)."""
DECISION = dtype_of("propensity f0 f1 f2 f3", "capable count full index ties scores features transient reason")
"""How many arms could do the task, how many may take it now, how many of the others are merely full; then what the
policy answered: the index of an estimate or NONE, the number of equals it was drawn among, whether it wrote scores, how
many features, and of a refusal whether it may be different in a second."""
ATTEMPT = dtype_of(
    # the task and the estimate of its arm when it was placed
    f"decided_s waited_s remaining_s deadline_s min_quality {ESTIMATE_FIELDS} bytes_per_s expires_at_s "
    # what was measured
    "finished_s measured_s ttft_s gateway_s queued_s prefill_s compute_s "
    "transmission_joules inference_joules idle_joules answer_quality sent_bytes received_bytes reward",
    "task serial attempt arm node is_cloud slot engine kind group status in_flight forgotten answered met",
)
"""One attempt at one arm, from its placing to its outcome. The estimate is the one it was placed by (`latency_s` among
it); `measured_s` is the measured latency. `in_flight`: it counts against its
node. `forgotten`: its outcome is ignored."""


class Options(NamedTuple):
    """Room for one decision: the arms that may take a task, what it would cost there, and the answer."""

    decision: Records
    """One DECISION."""
    estimates: Records
    """ESTIMATE of each arm; the first `decision[0].count` count."""
    scores: Floats
    """Score of each arm, larger is better."""


def blank_options(arms: int, *, arrays: bool) -> Options:
    """Room for a decision among so many arms."""
    return Options(rows(DECISION, 1, arrays=arrays), rows(ESTIMATE, arms, arrays=arrays), floats(arms, arrays=arrays))


@cache
def row_class(dtype: np.dtype[np.void]) -> type[Any]:
    """The plain counterpart of a record type: an object with slots, every field zero."""
    names = list(dtype.names or ())
    lines = []
    for name in names:
        field = dtype[name]
        zero = f"[0] * {field.shape[0]}" if field.shape else ("0" if field.kind == "i" else "0.0")
        lines.append(f"        self.{name} = {zero}")
    source = f"class Row:\n    __slots__ = {tuple(names)!r}\n    def __init__(self):\n" + "\n".join(lines)
    scope: dict[str, Any] = {}
    exec(source, scope)  # the names come from the record types in this repository
    row: type[Any] = scope["Row"]
    row.dtype = dtype
    return row


def rows(dtype: np.dtype[np.void], count: int, *, arrays: bool) -> Records:
    """`count` blank rows: a structured array for machine code, a list of objects for plain Python."""
    if arrays:
        return np.zeros(count, dtype=dtype)
    row = row_class(dtype)
    return [row() for _ in range(count)]


def records_of(dtype: np.dtype[np.void], values: Sequence[tuple[float, ...]], *, arrays: bool) -> Records:
    """Rows from the values of their fields, in order."""
    if arrays:
        return np.array(values, dtype=dtype)
    records = rows(dtype, len(values), arrays=False)
    for record, numbers in zip(records, values, strict=True):
        put(record, dict(zip(dtype.names or (), numbers, strict=True)))
    return records


def integers(*shape: int, arrays: bool, fill: int = 0) -> Integers:
    """An int64 array of any shape, or nested lists."""
    return np.full(shape, fill, dtype=np.int64) if arrays else _nested(shape, fill)


def floats(*shape: int, arrays: bool, fill: float = 0.0) -> Floats:
    """A float64 array of any shape, or nested lists."""
    return np.full(shape, fill) if arrays else _nested(shape, fill)


def _nested(shape: Sequence[int], fill: float) -> list[Any]:
    first, *rest = shape
    return [_nested(rest, fill) for _ in range(first)] if rest else [fill] * first


def put(record: Record, values: Mapping[str, float]) -> None:
    """Write fields by name, whichever form the record has."""
    if isinstance(record, np.void):
        for name, value in values.items():
            record[name] = value
    else:
        for name, value in values.items():
            setattr(record, name, value)


def get(record: Record, name: str) -> Any:
    """Read a field by name, whichever form the record has."""
    return record[name].item() if isinstance(record, np.void) else getattr(record, name)


def fields_of(record: Record) -> dict[str, Any]:
    """All fields by name, whichever form the record has; quicker than many calls of `get`."""
    if isinstance(record, np.void):
        return dict(zip(record.dtype.names or (), record.item(), strict=True))
    return {name: getattr(record, name) for name in type(record).dtype.names}


def values_of(record: Record, names: Sequence[str]) -> tuple[Any, ...]:
    """Several fields of a row, whichever form it has; quicker than many calls of `get`."""
    if isinstance(record, np.void):
        fields = fields_of(record)
        return tuple(fields[name] for name in names)
    values: tuple[Any, ...] = attrgetter(*names)(record)
    return values


def kept(records: Records, places: Sequence[int], names: Sequence[str]) -> Callable[[], list[tuple[Any, ...]]]:
    """Remembers several fields of several rows as they are now; the result gives their values, row by row."""
    if isinstance(records, np.ndarray):
        copy = records[list(places)]
        return copy[list(names)].tolist
    read = attrgetter(*names)
    values = [read(records[place]) for place in places]
    return lambda: values


def column(records: Records, name: str, count: int) -> NDArray[Any]:
    """One field of the first `count` rows, as an array: a view of a structured array, a copy of plain rows."""
    if isinstance(records, np.ndarray):
        view: NDArray[Any] = records[name][:count]
        return view
    return np.array([getattr(record, name) for record in records[:count]])


def with_room(records: Records, dtype: np.dtype[np.void], count: int) -> Records:
    """The same rows followed by blank ones, `count` in total. A list is extended in place."""
    missing = count - len(records)
    if isinstance(records, np.ndarray):
        return np.concatenate([records, np.zeros(missing, dtype=dtype)])
    records.extend(rows(dtype, missing, arrays=False))
    return records


def in_form(value: Any, *, arrays: bool) -> Any:
    """The same records, arrays or named tuple of them as arrays or as lists; other values as they are."""
    if isinstance(value, tuple):
        return type(value)(*(in_form(each, arrays=arrays) for each in value))
    if isinstance(value, np.ndarray) and not arrays:
        return _plain_rows(value) if value.dtype.names else value.tolist()
    if isinstance(value, list) and arrays:
        return _array(value)
    return value


def _plain_rows(records: NDArray[np.void]) -> Records:
    plain = rows(records.dtype, len(records), arrays=False)
    for row, values in zip(plain, records.tolist(), strict=True):
        for name, value in zip(records.dtype.names or (), values, strict=True):
            setattr(row, name, value.tolist() if isinstance(value, np.ndarray) else value)
    return plain


def _array(values: list[Any]) -> NDArray[Any]:
    dtype = getattr(type(values[0]), "dtype", None) if values else None
    if dtype is None:
        return np.array(values)
    return np.array([tuple([getattr(row, name) for name in dtype.names]) for row in values], dtype=dtype)
