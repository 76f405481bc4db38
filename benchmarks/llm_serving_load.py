"""Open-loop load for `benchmarks.llm_serving`: completions over server-sent events, each token's arrival noted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import httpx
import numpy as np

from skyshore.workload.prompts import WORDS

TIMEOUT_S: Final = 300.0
HEADERS: Final = {"x-skyshore-deadline-s": "300"}
"""Our gateway's default deadline is for people who wait; a peer ignores the header."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One completion to ask for, so many seconds after the window opens."""

    at_s: float
    prompt: str
    max_tokens: int


@dataclass(slots=True)
class Seen:
    """What came of a request: the instants of its tokens, in seconds since it was sent."""

    sent_s: float
    """Since the window opened."""
    token_s: list[float] = field(default_factory=list)
    complete: bool = False

    def ttft_s(self, window_s: float) -> float:
        """Time to first token; for a request still waiting when the window closed, how long it had waited."""
        return self.token_s[0] if self.token_s else window_s - self.sent_s


def words(tokens: int, rng: np.random.Generator) -> str:
    """Text of about that many tokens that no other request shares a prefix with."""
    return " ".join(rng.choice(WORDS, tokens))


async def ask(client: httpx.AsyncClient, url: str, model: str, request: LoadRequest, seen: Seen) -> None:
    """Stream one completion into `seen`.

    Raises:
        RuntimeError: the server answered with an error.
    """
    body = {
        "model": model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "stream": True,
    }
    start = time.perf_counter()
    async with client.stream("POST", f"{url}/v1/completions", json=body, headers=HEADERS) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{url} answered {response.status_code}: {(await response.aread())[:400]!r}")
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "choices" not in event:
                    raise RuntimeError(f"{url} broke an answer off: {line[:400]}")
                if event["choices"][0]["text"]:
                    seen.token_s.append(time.perf_counter() - start)
    seen.complete = True


async def run_window(url: str, model: str, requests: Sequence[LoadRequest], window_s: float) -> list[Seen]:
    """Send each request at its time, whatever became of the others; hang up when the window closes, then drain."""
    seen: list[Seen] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:
        start = time.perf_counter()

        async def send(request: LoadRequest) -> None:
            await asyncio.sleep(max(0.0, request.at_s - (time.perf_counter() - start)))
            mine = Seen(time.perf_counter() - start)
            seen.append(mine)
            await ask(client, url, model, request, mine)

        with suppress(TimeoutError):
            async with asyncio.timeout(window_s), asyncio.TaskGroup() as group:
                for request in requests:
                    group.create_task(send(request))
                await asyncio.sleep(window_s)
        # What was hung up on may still be in the server's queue; it is empty when one more question is answered.
        await ask(client, url, model, LoadRequest(0.0, "one two three", 1), Seen(0.0))
    return seen


async def burst_s(url: str, model: str, requests: Sequence[LoadRequest]) -> float:
    """Seconds to answer all of them when they come at once."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=None)) as client:
        start = time.perf_counter()
        await asyncio.gather(*(ask(client, url, model, request, Seen(0.0)) for request in requests))
        return time.perf_counter() - start


async def p99_gap_s(url: str, model: str, rng: np.random.Generator, *, rows: int, tokens: int, long: int) -> float:
    """99th percentile of the time between tokens of `rows` answers; a prompt of `long` tokens arrives among them."""
    answers = [Seen(0.0) for _ in range(rows)]
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=None)) as client:

        async def disturb() -> None:
            while any(len(answer.token_s) < 8 for answer in answers):  # noqa: ASYNC110 - all stream before it comes
                await asyncio.sleep(0.005)
            await ask(client, url, model, LoadRequest(0.0, words(long, rng), 1), Seen(0.0))

        async with asyncio.TaskGroup() as group:
            for answer in answers:
                group.create_task(ask(client, url, model, LoadRequest(0.0, words(24, rng), tokens), answer))
            if long:
                group.create_task(disturb())
    return float(np.percentile(np.concatenate([np.diff(answer.token_s[4:]) for answer in answers]), 99))
