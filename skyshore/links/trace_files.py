"""Reads capacity traces from text: Mahimahi's packet times and `time, rate` tables."""

from __future__ import annotations

import numpy as np

from skyshore.links.capacity import Trace

PACKET_BYTES = 1500
"""Bytes that one line of a Mahimahi file stands for."""
BITS = 8
MEGA = 1e6


class TraceError(ValueError):
    """A trace that cannot be read; the message names the line and the fix."""


def parse_mahimahi(text: str) -> Trace:
    """One whole number a line: the millisecond at which one 1500-byte packet may leave; the file loops at its end.

    The packets of one millisecond are spread over it, so the rate is exact per millisecond.

    Raises:
        TraceError: a line is no such number, or smaller than the one before.
    """
    times: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if not word.isdigit():
            raise TraceError(f"line {number}: '{word[:40]}' is no whole number of milliseconds")
        if times and int(word) < times[-1]:
            raise TraceError(f"line {number}: {word} ms comes before {times[-1]} ms; times must not fall")
        times.append(int(word))
    if not times or times[-1] == 0:
        raise TraceError("the trace lets nothing through: it needs at least one time after 0 ms")
    # A packet at the last millisecond t leaves within (t - 1, t], one at 0 in the first; so the length is t.
    counts = np.bincount(np.maximum(np.asarray(times) - 1, 0), minlength=times[-1])
    changes = np.flatnonzero(np.diff(counts)) + 1
    starts = np.concatenate(([0], changes))
    edges = np.concatenate((starts, [len(counts)])) / 1000.0
    return Trace(edges, counts[starts] * PACKET_BYTES * 1000.0)


def parse_rate_table(text: str) -> Trace:
    """Two numbers a line, seconds and Mbit/s, separated by comma or blank; each rate holds until the next line's time.

    A heading is skipped. The last rate holds as long as the one before it; then the table starts over.

    Raises:
        TraceError: a line holds something else, times do not rise, or every rate is 0.
    """
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or line.lstrip().startswith("#"):
            continue
        try:
            time_s, rate = float(words[0]), float(words[1])
        except (ValueError, IndexError):
            if not rows:
                continue
            raise TraceError(f"line {number}: '{line.strip()[:40]}' is not `seconds, Mbit/s`") from None
        if rows and not time_s > rows[-1][0]:
            raise TraceError(f"line {number}: {time_s:g} s does not come after {rows[-1][0]:g} s")
        if not 0 <= rate < float("inf"):
            raise TraceError(f"line {number}: a rate of {rate:g} Mbit/s; it must be at least 0")
        rows.append((time_s, rate))
    if len(rows) < 2 or not any(rate for _, rate in rows):
        raise TraceError("the table needs at least two lines of `seconds, Mbit/s` and one rate above 0")
    times = np.asarray([time_s for time_s, _ in rows])
    edges = np.concatenate((times, [times[-1] + (times[-1] - times[-2])])) - times[0]
    return Trace(edges, np.asarray([rate for _, rate in rows]) * MEGA / BITS)


def parse_trace(text: str) -> Trace:
    """Either form, recognised by the first line that holds a number: one whole number is Mahimahi's.

    Raises:
        TraceError: it is neither.
    """
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        if words and words[0][0].isdigit():
            return parse_mahimahi(text) if len(words) == 1 else parse_rate_table(text)
    raise TraceError("no line of the trace holds a number")
