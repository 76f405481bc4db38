"""Clients that follow the decision log. Each has a bounded queue, so a slow one does not delay others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from skyshore.domain.errors import QueueFull
from skyshore.domain.placement import DecisionRecord

BACKLOG = 1000
"""Newest decisions kept for new watchers."""
BEHIND = 1000
"""A watcher with this many unread decisions is disconnected."""


class DecisionWatchers:
    """Sends every decision to every watcher."""

    def __init__(self) -> None:
        self._recent: deque[DecisionRecord] = deque(maxlen=BACKLOG)
        self._queues: set[asyncio.Queue[DecisionRecord | None]] = set()

    def publish(self, record: DecisionRecord) -> None:
        """One more decision; never waits."""
        self._recent.append(record)
        for queue in self._queues:
            if queue.qsize() <= BEHIND:  # one more place is for the marker of the overflow
                queue.put_nowait(record if queue.qsize() < BEHIND else None)

    async def watch(self, backlog: int) -> AsyncIterator[DecisionRecord]:
        """The last `backlog` decisions (at most 1000), then each new one.

        Raises:
            QueueFull: the caller read too slowly and would have missed some.
        """
        queue: asyncio.Queue[DecisionRecord | None] = asyncio.Queue(BEHIND + 1)
        past = list(self._recent)[-backlog:] if backlog > 0 else []
        self._queues.add(queue)
        try:
            for record in past:
                yield record
            while (latest := await queue.get()) is not None:
                yield latest
            raise QueueFull(f"more than {BEHIND} decisions were waiting to be read; watch again", retry_after_s=0.0)
        finally:
            self._queues.discard(queue)
