"""Connections that send too much, too slowly or nothing are closed; others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import uvicorn

from skyshore.runtime import http_limits
from skyshore.runtime.http_limits import HttpLimits, limited

QUICK = HttpLimits(head_s=0.3, body_s=0.3, write_s=0.3, connections=6, headers=20)


async def app(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/much":
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": str(size).encode()})


@asynccontextmanager
async def serving(limits: HttpLimits = QUICK) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=limited(limits), lifespan="off", log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "TICK_S", 0.05)
    monkeypatch.setattr(http_limits, "LINGER_S", 0.2)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


GOOD = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc"


async def test_a_usual_request_is_answered() -> None:
    async with serving() as port:
        answer = await ask(port, GOOD)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"3\r\n0\r\n\r\n") or answer.endswith(b"3")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30_000, 431),
        (b"nonsense\r\n\r\n", 400),
        (b"", 408),
        (b"\r\n", 408),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", 408),
        (b"POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\nabc", 408),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", 408),
    ],
)
async def test_what_is_too_large_or_too_slow_is_refused_and_closed(request_: bytes, status: int) -> None:
    async with serving() as port:
        slow = asyncio.create_task(ask(port, request_))
        assert (await ask(port, GOOD)).startswith(b"HTTP/1.1 200")
        answer = await slow
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b'{"error": {"message": ' in answer


async def test_a_connection_that_is_kept_open_by_empty_lines_ends() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GOOD.replace(b"connection: close\r\n", b""))
        await reader.readuntil(b"200")
        writer.write(b"\r\n")
        assert b" 408 " in await asyncio.wait_for(reader.read(), 60)
        writer.close()


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readexactly(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        deadline = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < deadline:
            writer.write(b"\r\n")
            await asyncio.sleep(0.05)
            if writer.transport.is_closing():
                break
        assert writer.transport.is_closing()


async def test_connections_beyond_the_limit_are_refused() -> None:
    async with serving(HttpLimits(connections=3)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert (await ask(port, b"")).startswith(b"HTTP/1.1 503 ")
        for _, writer in held:
            writer.close()
