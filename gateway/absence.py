"""Decides which nodes are gone. A broken cable sends no message: calls on it would wait for their deadlines."""

from __future__ import annotations

from collections.abc import Collection

GRACE_S = 4.0
"""Seconds without a lease after which a node counts as gone. A lease runs out 3 s after the last heartbeat."""


class Absences:
    """Remembers since when busy nodes have no lease. Time is an argument."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._since_s: dict[str, float] = {}

    def gone(self, now_s: float, leased: Collection[str], busy: Collection[str]) -> list[str]:
        """The busy addresses that have had no lease for the grace time, sorted; `now_s` is on any monotonic clock."""
        absent = set(busy) - set(leased)
        self._since_s = {address: self._since_s.get(address, now_s) for address in absent}
        return sorted(address for address, since_s in self._since_s.items() if now_s - since_s >= self._grace_s)

    def store_away(self) -> None:
        """The store is away, so leases are unknown: every node gets the whole grace time again."""
        self._since_s.clear()
