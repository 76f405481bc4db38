"""Sends a task to an OpenAI-compatible server and measures its times from outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, QueueFull
from skyshore.domain.llm import FinishReason, LlmInput, TokenChunk
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.engines.openai import messages

CHECK_S = 10.0


@dataclass(slots=True)
class _Seen:
    """What is known of one answer so far. `text` is held back by one chunk, because the last one carries the totals."""

    started_s: float
    first_s: float = 0.0
    text: str = ""
    tokens: int = 0
    sent_tokens: int = 0
    logprobs: tuple[Any, ...] = ()
    finish: FinishReason | None = None
    usage: dict[str, Any] = field(default_factory=dict)


class OpenAiLlmEngine:
    """No retries: the scheduler decides what happens to a task that failed."""

    def __init__(self, model: str, base_url: str, *, key: str = "", slots: int = 8) -> None:
        self.model = model
        self._slots, self._running = slots, 0
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=slots, max_keepalive_connections=slots)
        # No timeout here: the task's deadline bounds every wait.
        self._client = httpx.AsyncClient(base_url=base_url, headers=headers, limits=limits, timeout=None)

    async def check(self) -> None:
        """Ask for the model list.

        Raises:
            NodeUnavailable: no server answers there.
        """
        try:
            async with asyncio.timeout(CHECK_S):
                (await self._client.get("/models")).raise_for_status()
        except (httpx.HTTPError, TimeoutError) as error:
            raise NodeUnavailable(
                f"no OpenAI-compatible server at {self._client.base_url} ({error or 'no answer in time'}); "
                "start it, or set SKYSHORE_NODE_UPSTREAM_URL"
            ) from error

    async def generate(self, task: Task, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """See `LlmEngine`. The upstream's queue and prefill cannot be told apart: both are `prefill_s`."""
        path, body = messages.request_body(self.model, request)
        if self._running >= self._slots:
            raise QueueFull(f"all {self._slots} connections to the upstream server are busy", retry_after_s=1.0)
        loop = asyncio.get_running_loop()
        seen, end_s = _Seen(loop.time()), loop.time() + task.deadline_s
        self._running += 1
        try:
            async with aclosing(self._lines(path, body, end_s)) as lines:
                async for line in lines:
                    if (chunk := _take(seen, line, loop.time())) is not None:
                        yield chunk
        finally:
            self._running -= 1
        if seen.finish is None:
            raise Internal("the upstream server's stream ended without a finish_reason")
        done_s = loop.time()
        first_s = seen.first_s or done_s
        output_tokens = int(seen.usage.get("completion_tokens") or seen.tokens)
        prompt_tokens = int(seen.usage.get("prompt_tokens") or 0)
        cached = int((seen.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        rest = max(0, output_tokens - seen.sent_tokens)
        yield TokenChunk(seen.text, rest, seen.logprobs, seen.finish, prompt_tokens, cached)
        yield WorkerOutcome(
            prefill_s=first_s - seen.started_s,
            compute_s=done_s - first_s,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached,
            output_tokens=output_tokens,
        )

    def load(self) -> EngineLoad:
        """See `LlmEngine`."""
        return EngineLoad(running=self._running, queued=0, capacity=self._slots)

    async def close(self) -> None:
        """See `LlmEngine`."""
        await self._client.aclose()

    async def _lines(self, path: str, body: dict[str, Any], end_s: float) -> AsyncGenerator[dict[str, Any]]:
        """Server-sent events as JSON objects. Each wait is bounded on its own: a timeout must not span a yield."""
        request = self._client.build_request("POST", path, json=body)
        async with _bounded(end_s):
            response = await self._client.send(request, stream=True)
        try:
            if response.status_code != 200:
                async with _bounded(end_s):
                    text = (await response.aread()).decode(errors="replace")
                raise messages.failure(response.status_code, text, response.headers.get("retry-after"))
            lines = response.aiter_lines()
            while True:
                async with _bounded(end_s):
                    line = await anext(lines, None)
                if line is None or line == "data: [DONE]":
                    return
                if line.startswith("data:"):
                    yield json.loads(line[5:])
        finally:
            await response.aclose()


def _take(seen: _Seen, event: dict[str, Any], now_s: float) -> TokenChunk | None:
    """Note one event; returns the chunk before it, if a newer one replaces it."""
    if event.get("usage"):
        seen.usage = event["usage"]
    if event.get("error"):
        raise messages.failure(500, json.dumps(event), None)
    if not event.get("choices"):
        return None
    choice = event["choices"][0]
    seen.finish = messages.finish_reason(choice) or seen.finish
    text = messages.chunk_text(choice)
    if not text:
        return None
    ready = None
    if seen.tokens > seen.sent_tokens:
        ready = TokenChunk(seen.text, 1, seen.logprobs)
        seen.sent_tokens += 1
    seen.first_s = seen.first_s or now_s
    seen.text, seen.logprobs, seen.tokens = text, messages.chunk_logprobs(choice), seen.tokens + 1
    return ready


@asynccontextmanager
async def _bounded(end_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(end_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded("the upstream server did not answer in time") from None
    except httpx.TransportError as error:
        raise NodeUnavailable(f"the upstream server went away: {error}") from error
