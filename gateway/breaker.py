"""One circuit breaker for each node: after several failures in a row the node gets no task for a while, then one probe.

Pure: time is an argument, in seconds on any monotonic clock. `gateway.endings` says which errors are a node's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FAILURES = 5
"""Failures in a row that open a closed breaker."""
FIRST_OPEN_S = 1.0
LONGEST_OPEN_S = 4.0
"""A breaker stays open for `FIRST_OPEN_S`; after each probe that fails, twice as long, up to this."""
FORGET_S = 600.0
"""A node that is never asked again is forgotten after this."""


class BreakerState(StrEnum):
    """Half open: the node may get one task, as a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class _Failing:
    """A node that has failed since its last success."""

    failures: int = 0
    last_s: float = 0.0
    open_s: float = 0.0
    """How long it stays open, from `last_s`. 0: closed."""
    is_probed: bool = False

    def state(self, now_s: float) -> BreakerState:
        if not self.open_s:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now_s >= self.last_s + self.open_s else BreakerState.OPEN


class NodeBreakers:
    """The breakers of all nodes. Call `begin` before each task and exactly one of the others after it."""

    def __init__(self) -> None:
        self._failing: dict[str, _Failing] = {}

    def begin(self, node_id: str, now_s: float) -> bool:
        """Whether the node may get a task now. True of a half-open node makes this task its probe."""
        node = self._failing.get(node_id)
        state = node.state(now_s) if node else BreakerState.CLOSED
        if node is None or state is BreakerState.CLOSED:
            return True
        if state is BreakerState.OPEN or node.is_probed:
            return False
        node.is_probed = True
        return True

    def succeeded(self, node_id: str) -> None:
        """The node did what it was asked: closed."""
        self._failing.pop(node_id, None)

    def failed(self, node_id: str, now_s: float) -> None:
        """The node failed a task."""
        node = self._failing.setdefault(node_id, _Failing())
        if node.open_s and not node.is_probed:
            return  # a task that was begun before it opened; only a probe says something new
        node.failures += 1
        node.last_s = now_s
        if node.is_probed or node.failures >= FAILURES:
            node.open_s = min(max(FIRST_OPEN_S, 2 * node.open_s), LONGEST_OPEN_S)
        node.is_probed = False
        for old in [name for name, other in self._failing.items() if now_s - other.last_s > FORGET_S]:
            del self._failing[old]

    def said_nothing(self, node_id: str) -> None:
        """The task ended for another reason, for example its caller left. After such a probe, another may follow."""
        if node := self._failing.get(node_id):
            node.is_probed = False

    def shut(self, now_s: float) -> list[str]:
        """Nodes that may get no task now, longest failing first."""
        shut = [
            (node.last_s, node_id)
            for node_id, node in self._failing.items()
            if (state := node.state(now_s)) is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and node.is_probed)
        ]
        return [node_id for _, node_id in sorted(shut)]

    def state(self, node_id: str, now_s: float) -> BreakerState:
        """For people and metrics."""
        node = self._failing.get(node_id)
        return node.state(now_s) if node else BreakerState.CLOSED
