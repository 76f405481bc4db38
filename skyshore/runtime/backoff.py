"""Waits that grow from one failure to the next."""

from __future__ import annotations


def doubled_wait_s(first_s: float, longest_s: float, failures: int) -> float:
    """Seconds to wait after `failures` earlier failures in a row: twice as long each time, up to `longest_s`."""
    return min(longest_s, first_s * 2.0 ** min(failures, 30))  # a larger power would overflow
