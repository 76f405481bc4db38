"""Writes decisions, snapshots and the event log in batches, outside the Place call."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import structlog

from skyshore.domain.errors import NodeUnavailable
from skyshore.domain.placement import DecisionRecord
from skyshore.ports import StateStore
from skyshore.scheduling.actions import SaveState
from skyshore.scheduling.core import CoreSettings
from skyshore.scheduling.events import Event
from skyshore.scheduling.log import EventEncoder, encode_header

log = structlog.get_logger()

MOST_WAITING = 10_000
"""Decisions kept while the store is away; older ones are then dropped and counted."""
BATCH = 500


class Journal:
    """Collects without waiting; `flush` writes."""

    def __init__(self, store: StateStore, event_log: Path | None, settings: CoreSettings) -> None:
        self._store = store
        self._decisions: deque[DecisionRecord] = deque()
        self._snapshots: dict[str, bytes] = {}
        self._event_log = event_log
        self._encoder = EventEncoder()
        self._lines: list[str] = []
        self._dropped = 0
        self._flushing = asyncio.Lock()
        if event_log is not None:
            event_log.parent.mkdir(parents=True, exist_ok=True)
            event_log.write_text(encode_header(settings) + "\n", encoding="utf-8")

    def note_event(self, event: Event) -> None:
        """Keep an event for the log, if one is written."""
        if self._event_log is not None:
            self._lines.append(self._encoder.encode(event))

    def note_decision(self, record: DecisionRecord) -> None:
        """Keep a decision for the store."""
        if len(self._decisions) >= MOST_WAITING:
            self._decisions.popleft()
            self._dropped += 1
        self._decisions.append(record)

    def note_snapshot(self, state: SaveState) -> None:
        """Keep a policy's newest snapshot for the store."""
        self._snapshots[state.policy] = state.snapshot

    async def flush(self) -> None:
        """Write all that is queued. What the store cannot take stays queued."""
        try:
            async with self._flushing:
                await self._flush_to_file()
                await self._flush_to_store()
        except NodeUnavailable as error:
            log.warning("records wait for the state store", decisions=len(self._decisions), why=str(error))

    async def _flush_to_file(self) -> None:
        if self._lines and self._event_log is not None:
            lines, self._lines = self._lines, []
            await asyncio.to_thread(_append, self._event_log, lines)

    async def _flush_to_store(self) -> None:
        if self._dropped:
            log.warning("decisions dropped while the state store was away", count=self._dropped)
            self._dropped = 0
        while self._decisions:
            batch = [self._decisions[index] for index in range(min(BATCH, len(self._decisions)))]
            await self._store.append_decisions(batch)
            for _ in batch:
                self._decisions.popleft()
        for policy, snapshot in list(self._snapshots.items()):
            await self._store.save_policy(policy, snapshot)
            if self._snapshots[policy] is snapshot:
                del self._snapshots[policy]


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
