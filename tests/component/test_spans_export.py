"""The span exporter between a real store and an HTTP server that stands where a collector would."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.spans.app import SpanExporter
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.outcome import Outcome, OutcomeStatus


class Collector:
    """Takes OTLP; `statuses` are answered first, then 200 for ever."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.offered: list[list[str]] = []
        self.taken: list[str] = []

    def take(self, body: dict[str, Any]) -> int:
        spans = [span for group in body["resourceSpans"] for span in group["scopeSpans"][0]["spans"]]
        values = [a["value"] for span in spans for a in span["attributes"] if a["key"] == "skyshore.task_id"]
        self.offered.append([value["stringValue"] for value in values])
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.taken += self.offered[-1]
        return status


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    taken = Collector()

    class CollectorHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(taken.take(body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), CollectorHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield taken, f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()
        thread.join()


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(valkey_url)
    yield store
    await store.close()


def outcome(task_id: str) -> Outcome:
    return Outcome(task_id, "edge-1/m", "edge-1", OutcomeStatus.OK, 100.0, 1.0, 60.0)


@asynccontextmanager
async def exporting(store: RedisStore, endpoint: str) -> AsyncIterator[None]:
    task = asyncio.create_task(SpanExporter(store, endpoint).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _export_some(store: RedisStore, collector: Collector, endpoint: str) -> list[str]:
    """Append outcomes until a few were taken (a new reader begins at the stream's end, whenever that is)."""
    appended: list[str] = []
    async with exporting(store, endpoint), asyncio.timeout(100):
        while len(collector.taken) < 5:
            appended.append(f"task {len(appended)}")
            await store.append_outcomes([outcome(appended[-1])])
            await asyncio.sleep(0.05)
    return appended


async def test_outcomes_from_before_the_start_are_left_alone(
    store: RedisStore, collector: tuple[Collector, str]
) -> None:
    there, endpoint = collector
    await store.append_outcomes([outcome("before")])
    appended = await _export_some(store, there, endpoint)
    assert there.taken[0] != "before"
    first = appended.index(there.taken[0])
    assert there.taken == appended[first : first + len(there.taken)]


async def test_a_collector_that_is_away_for_a_while_loses_nothing(
    store: RedisStore, collector: tuple[Collector, str]
) -> None:
    there, endpoint = collector
    there.statuses = [503, 503]
    appended = await _export_some(store, there, endpoint)
    first = appended.index(there.offered[0][0])
    assert there.offered[2][0] == there.offered[0][0]
    assert there.taken == appended[first : first + len(there.taken)]


async def test_a_batch_that_is_refused_for_good_does_not_hold_up_the_next(
    store: RedisStore, collector: tuple[Collector, str]
) -> None:
    there, endpoint = collector
    there.statuses = [400]
    appended = await _export_some(store, there, endpoint)
    after_refused = appended.index(there.offered[0][-1]) + 1
    assert there.taken == appended[after_refused : after_refused + len(there.taken)]
