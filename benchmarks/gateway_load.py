"""Load for the gateway bench, in a process of its own: `python -m benchmarks.gateway_load http://…|grpc://… …`.

Closed loop: each of `concurrency` callers sends its next request when it has the last answer. The HTTP side is a bare
asyncio protocol over httptools, because a comfortable client costs more than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from skyshore.adapters.worker_client import GrpcWorkerClient
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.domain.task import Task, TaskKind

PROMPT = "Which way does the tide run at the northern pier when the wind turns to the west in the afternoon?"
NUMBERS = 1_000_000
"""Every HTTP prompt ends with a number of its own, of six digits: no memory of earlier prompts may help anybody."""
MAX_TOKENS = 16
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What one run of load saw."""

    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    requests_per_s: float


class HttpCaller(asyncio.Protocol):
    """One keep-alive connection that sends the next request when it has an answer."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio's callback."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"connection lost: {error}"))

    def on_message_complete(self) -> None:
        """Httptools' callback."""
        if self._answer and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self) -> bool:
        """One question; whether it was answered well."""
        assert self._transport
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(next(self._requests))
        return await self._answer == 200


def http_requests(host: str, path: str, model: str, key: str) -> Iterator[bytes]:
    """The bytes of one chat request after the other, not streamed."""
    turn = {"role": "user", "content": f"{PROMPT} 000000"}
    body = json.dumps({"model": model, "messages": [turn], "max_tokens": MAX_TOKENS, "temperature": 0}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    before, after = (head.encode() + body).split(b"000000")
    for number in count(time.time_ns()):
        yield b"%b%06d%b" % (before, number % NUMBERS, after)


async def http_callers(url: str, model: str, key: str, connections: int) -> list[Callable[[], Awaitable[bool]]]:
    """One caller for each open connection."""
    parts = urlsplit(url)
    requests = http_requests(parts.netloc, parts.path, model, key)
    loop = asyncio.get_running_loop()
    callers: list[Callable[[], Awaitable[bool]]] = []
    for _ in range(connections):
        _, caller = await loop.create_connection(lambda: HttpCaller(requests), parts.hostname or "", parts.port or 80)
        callers.append(caller.ask)
    return callers


async def grpc_callers(url: str, arm_id: str, callers: int) -> list[Callable[[], Awaitable[bool]]]:
    """Callers that share the one stream to a node, as the gateway does."""
    client = GrpcWorkerClient(urlsplit(url).netloc)
    task = Task("bench", TaskKind.LLM, deadline_s=TIMEOUT_S)
    prompt = LlmInput(messages=(ChatMessage("user", PROMPT),), sampling=Sampling(max_tokens=MAX_TOKENS, temperature=0))

    async def ask() -> bool:
        events = [event async for event in client.execute(task, arm_id, prompt)]
        return len(events) > 1

    return [ask] * callers


async def measure(callers: list[Callable[[], Awaitable[bool]]], warm_s: float, seconds: float) -> LoadFigures:
    """Run all callers; what starts within the first `warm_s` is not counted."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time() + warm_s
    end_s = begin_s + seconds
    latencies: list[float] = []
    errors = 0

    async def call(ask: Callable[[], Awaitable[bool]]) -> None:
        nonlocal errors
        while (start_s := time.perf_counter()) and loop.time() < end_s:
            counted = loop.time() >= begin_s
            good = await asyncio.wait_for(ask(), TIMEOUT_S)
            if counted:
                latencies.append(time.perf_counter() - start_s)
                errors += not good

    await asyncio.gather(*(call(ask) for ask in callers))
    latencies.sort()

    def quantile_ms(share: float) -> float:
        return 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    return LoadFigures(len(latencies), errors, quantile_ms(0.5), quantile_ms(0.99), len(latencies) / seconds)


async def main(arguments: argparse.Namespace) -> LoadFigures:
    """One run."""
    if arguments.url.startswith("grpc://"):
        callers = await grpc_callers(arguments.url, arguments.model, arguments.concurrency)
    else:
        callers = await http_callers(arguments.url, arguments.model, arguments.key, arguments.concurrency)
    return await measure(callers, arguments.warm_s, arguments.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="http://host:port/path, or grpc://host:port of a node")
    parser.add_argument("--model", required=True, help="model, or for a node its arm")
    parser.add_argument("--key", default="none")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--warm-s", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=2.0)
    print(json.dumps(asdict(uvloop.run(main(parser.parse_args())))))
