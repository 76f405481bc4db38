"""Writes decisions, snapshots and the event log in batches, outside the Place call."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog

from skyshore.domain.placement import DecisionRecord
from skyshore.ports import StateStore
from skyshore.runtime import telemetry
from skyshore.runtime.endure import DEPENDENCY_FAILED, why
from skyshore.scheduling.actions import SaveState
from skyshore.scheduling.core import CoreSettings
from skyshore.scheduling.events import Event
from skyshore.scheduling.log import EventEncoder, encode_header

log = structlog.get_logger()

MOST_WAITING = 10_000
"""Decisions kept while the store is away, and events while the disk is full. Older ones are dropped and counted."""
BATCH = 500

EntryT = TypeVar("EntryT")


class Journal:
    """Collects without waiting; `flush_to_store` and `flush_to_file` write."""

    def __init__(self, store: StateStore, event_log: Path | None, settings: CoreSettings) -> None:
        self._store = store
        self._decisions: deque[DecisionRecord] = deque()
        self._snapshots: dict[str, bytes] = {}
        self._event_log = event_log
        self._encoder = EventEncoder()
        self._lines: deque[str] = deque()
        self._flushing = asyncio.Lock()
        if event_log is not None:
            event_log.parent.mkdir(parents=True, exist_ok=True)
            event_log.write_text(encode_header(settings) + "\n", encoding="utf-8")

    def note_event(self, event: Event) -> None:
        """Keep an event for the log, if one is written."""
        if self._event_log is not None:
            _append_bounded(self._lines, self._encoder.encode(event), "event")

    def note_decision(self, record: DecisionRecord) -> None:
        """Keep a decision for the store."""
        _append_bounded(self._decisions, record, "decision")

    def note_snapshot(self, state: SaveState) -> None:
        """Keep a policy's newest snapshot for the store."""
        self._snapshots[state.policy] = state.snapshot

    async def flush_to_file(self) -> None:
        """Write the waiting events. Raises OSError; what the disk does not take stays queued."""
        if self._event_log is None or not self._lines:
            return
        lines = list(self._lines)
        self._lines.clear()
        try:
            await asyncio.to_thread(_append, self._event_log, lines)
        except OSError:
            self._lines.extendleft(reversed(lines))
            raise

    async def flush_to_store(self) -> None:
        """Write all that is queued. Raises StoreUnavailable, StoreBusy; what the store does not take stays queued."""
        async with self._flushing:
            while self._decisions:
                batch = [self._decisions.popleft() for _ in range(min(BATCH, len(self._decisions)))]
                try:
                    await self._store.append_decisions(batch)
                except BaseException:
                    self._decisions.extendleft(reversed(batch))
                    raise
            for policy, snapshot in list(self._snapshots.items()):
                await self._store.save_policy(policy, snapshot)
                if self._snapshots[policy] is snapshot:
                    del self._snapshots[policy]

    async def close(self) -> None:
        """Write what is left, once. What cannot be written is counted as dropped."""
        for kind, flush, queue in (
            ("event", self.flush_to_file, self._lines),
            ("decision", self.flush_to_store, self._decisions),
        ):
            try:
                await flush()
            except DEPENDENCY_FAILED as error:
                log.warning("records lost at shutdown", kind=kind, count=len(queue), **why(error))
                telemetry.RECORDS_DROPPED.labels(kind).inc(len(queue))


def _append_bounded(queue: deque[EntryT], entry: EntryT, kind: str) -> None:
    if len(queue) >= MOST_WAITING:
        queue.popleft()
        telemetry.RECORDS_DROPPED.labels(kind).inc()
    queue.append(entry)


def _append(path: Path, lines: list[str]) -> None:
    """Append all lines or none: half a line would make the log unreadable."""
    with path.open("ab") as file:
        end = os.fstat(file.fileno()).st_size
        try:
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
        except OSError:
            with suppress(OSError):
                os.truncate(path, end)
            raise
