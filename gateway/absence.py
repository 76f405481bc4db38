"""Which nodes must be gone. A cut cable tells nobody: calls on it would wait for their deadlines."""

from __future__ import annotations

from collections.abc import Collection

GRACE_S = 4.0
"""A lease that ran out (3 s without a sign of life) and stayed away this long is no hiccup of the store."""


class Absences:
    """Watches leases; says when to give up calls on a node without one. Time is an argument."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._since_s: dict[str, float] = {}

    def gone(self, now_s: float, leased: Collection[str], busy: Collection[str]) -> list[str]:
        """The busy addresses that have had no lease for the grace time."""
        absent = set(busy) - set(leased)
        self._since_s = {address: self._since_s.get(address, now_s) for address in absent}
        return sorted(address for address, since_s in self._since_s.items() if now_s - since_s >= self._grace_s)

    def store_away(self) -> None:
        """Nobody can know: every node gets the whole grace time again once the store is back."""
        self._since_s.clear()
