"""The schedule file: every request of an experiment, fixed and hashed before the run, for replay and simulator.

JSON lines. The first line is the header. Its `sha256` is that of all bytes after the first line break, so that
`tail -n +2 FILE | sha256sum` can check a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from itertools import pairwise

from pydantic import TypeAdapter, ValidationError

from skyshore.domain.errors import SkyshoreError
from skyshore.workload.arrival import Arrival

FORMAT = "skyshore.schedule/1"
_DEFAULTS = {field.name: field.default for field in fields(Arrival)}


class InvalidSchedule(SkyshoreError):
    """A schedule file that is damaged; the message names the line."""

    code = "invalid_schedule"


@dataclass(frozen=True)
class Schedule:
    """Arrivals in order of intended time, and how they were made."""

    arrivals: tuple[Arrival, ...]
    duration_s: float
    """Length of the schedule in seconds; at least the last intended time."""
    seed: int
    provenance: tuple[str, ...] = ()
    """One line per source and per transformation, in the order they were applied."""

    def __post_init__(self) -> None:
        """Raises InvalidSchedule for arrivals out of order or after the end."""
        times = [arrival.t_intended_s for arrival in self.arrivals]
        if any(later < earlier for earlier, later in pairwise(times)):
            raise InvalidSchedule("arrivals are not in order of t_intended_s; sort them before making a schedule")
        if times and times[-1] > self.duration_s:
            raise InvalidSchedule(
                f"the last arrival, {times[-1]} s, is after the end of the schedule, {self.duration_s} s"
            )

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the arrivals; equal digests mean equal requests at equal times."""
        return _digest(map(_row, self.arrivals))


def assemble(
    streams: Iterable[Sequence[Arrival]], *, duration_s: float, seed: int, provenance: Sequence[str] = ()
) -> Schedule:
    """Merge streams into one schedule: times are rounded to 1 µs, ids are in order of time."""
    merged = [replace(arrival, t_intended_s=round(arrival.t_intended_s, 6)) for stream in streams for arrival in stream]
    merged.sort(key=lambda arrival: arrival.t_intended_s)
    width = max(6, len(str(len(merged))))
    numbered = (replace(arrival, request_id=f"r{index:0{width}d}") for index, arrival in enumerate(merged))
    return Schedule(tuple(numbered), round(duration_s, 6), seed, tuple(provenance))


def to_lines(schedule: Schedule) -> Iterator[str]:
    """The lines of the file, each with its line break: the header, then one row per arrival."""
    header = {
        "format": FORMAT,
        "sha256": schedule.sha256,
        "seed": schedule.seed,
        "requests": len(schedule.arrivals),
        "duration_s": schedule.duration_s,
        "provenance": schedule.provenance,
    }
    yield json.dumps(header) + "\n"
    yield from map(_row, schedule.arrivals)


def from_lines(lines: Iterable[str]) -> Schedule:
    """Read the lines of `to_lines`.

    Raises:
        InvalidSchedule: not a schedule file, a bad row, a wrong count, or a digest that does not match.
    """
    iterator = iter(lines)
    header = _header(next(iterator, ""))
    rows = [line for line in iterator if line.strip()]
    if len(rows) != header.requests:
        raise InvalidSchedule(f"the header says {header.requests} requests, the file has {len(rows)}")
    digest = _digest(rows)
    if digest != header.sha256:
        raise InvalidSchedule(
            f"the rows hash to {digest[:12]}…, the header says {header.sha256[:12]}…: the file was changed; "
            "make it again with `skyshore traces make`"
        )
    arrivals = tuple(_arrival(number, row) for number, row in enumerate(rows, start=2))
    return Schedule(arrivals, header.duration_s, header.seed, header.provenance)


def _row(arrival: Arrival) -> str:
    given = {name: value for name in _DEFAULTS if (value := getattr(arrival, name)) != _DEFAULTS[name]}
    return json.dumps(given, separators=(",", ":")) + "\n"


def _digest(rows: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Header:
    format: str
    sha256: str
    seed: int
    requests: int
    duration_s: float
    provenance: tuple[str, ...] = ()


@cache
def _adapters() -> tuple[TypeAdapter[_Header], TypeAdapter[Arrival]]:
    return TypeAdapter(_Header), TypeAdapter(Arrival)


def _header(line: str) -> _Header:
    try:
        header = _adapters()[0].validate_json(line)
    except ValidationError as error:
        raise InvalidSchedule(f"line 1 is not a schedule header: {_first(error)}") from error
    if header.format != FORMAT:
        raise InvalidSchedule(f"line 1: format {header.format!r} is not {FORMAT!r}, which this version reads")
    return header


def _arrival(number: int, row: str) -> Arrival:
    try:
        return _adapters()[1].validate_json(row)
    except ValidationError as error:
        raise InvalidSchedule(f"line {number}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in detail["loc"])
    return f"{field}: {detail['msg']}" if field else detail["msg"]
