"""Follows the outcome stream and sends each batch to a collector. Holds one batch; the rest waits in the stream."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

import structlog

from services.spans.otlp import request
from services.spans.settings import SpansSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.outcome import Outcome
from skyshore.ports import StateStore
from skyshore.runtime.endure import for_ever, until_done
from skyshore.runtime.serve import stop_signal

log = structlog.get_logger()

BATCH = 500
BLOCK_S = 1.0
SEND_TIMEOUT_S = 5.0
REFUSED = range(400, 429)
"""HTTP statuses after which the same batch is not sent again."""


class SpanExporter:
    """Sends the outcomes that are written after its start to one collector."""

    def __init__(self, store: StateStore, endpoint: str) -> None:
        self._store, self._endpoint = store, endpoint
        self._cursor = "$"

    async def run(self) -> None:
        """Export until cancelled. Waits while the store or the collector is away."""
        await for_ever("export", self._export)

    async def _export(self) -> None:
        cursor, outcomes = await self._store.read_outcomes(self._cursor, BATCH, BLOCK_S)
        if outcomes:
            await until_done("collector", lambda: asyncio.to_thread(self._send, outcomes))
        self._cursor = cursor

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        """POST one batch; drop it with a log line if the collector refuses it for good.

        Raises:
            OSError: the collector did not answer, or may accept the batch later.
        """
        body = json.dumps(request(outcomes)).encode()
        call = urllib.request.Request(self._endpoint, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(call, timeout=SEND_TIMEOUT_S) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in REFUSED:
                raise
            log.error("the collector refuses spans; they are dropped", outcomes=len(outcomes), status=error.code)


async def serve(settings: SpansSettings) -> None:
    """Export until SIGTERM or SIGINT."""
    store = RedisStore(settings.redis_url)
    try:
        async with asyncio.TaskGroup() as group:
            exporting = group.create_task(SpanExporter(store, settings.spans_endpoint).run())
            log.info("exporting", endpoint=settings.spans_endpoint)
            await stop_signal()
            exporting.cancel()
    finally:
        await store.close()
