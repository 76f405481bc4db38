"""What one task has tried so far, and how long it waits for what is away."""

from __future__ import annotations

import asyncio

from gateway.endings import is_absence
from skyshore.domain.errors import SkyshoreError
from skyshore.runtime.backoff import doubled_wait_s

ROOM_POLL_S = 0.5
"""Longest wait before the scheduler is asked again for a node with room."""
MAX_POLL_S = 4.0
"""Longest wait after every node failed the task. The wait doubles with each such round."""


class Tried:
    """Nodes that failed the task, and how often it failed by itself.

    A patient task waits for the end of an absence (see `gateway.endings`), and counts none as a failure.
    """

    def __init__(self, *, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.node_ids: list[str] = []
        """Nodes to avoid."""
        self.failures = 0
        """Executions that count against `RetryLimits.attempts`."""
        self._rounds = 0
        self._last: SkyshoreError | None = None

    def add(self, node_id: str, error: SkyshoreError) -> None:
        """The task failed on a node."""
        self.node_ids.append(node_id)
        self._last = error
        if not (self.is_patient and is_absence(error)):
            self.failures += 1

    async def wait(self, error: SkyshoreError) -> None:
        """Profiler, scheduler or every node is away or full: wait a moment. Raises at once if the task is impatient."""
        if not self.is_patient:
            # No other node is left: the error of the last node tells the caller more than this one.
            raise self._last or error from error
        # After a round in which every node failed, the next round comes later: nodes are not asked again and again.
        self._rounds = self._rounds + 1 if self.node_ids else 0
        self.node_ids = []  # a node that failed is better than none
        longest_s = doubled_wait_s(ROOM_POLL_S, MAX_POLL_S, self._rounds)
        await asyncio.sleep(longest_s if self._rounds else min(error.retry_after_s or longest_s, longest_s))
