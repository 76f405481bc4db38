"""/v1/chat/completions and /v1/completions: turns requests of OpenAI's API into tasks, and their answers back.

Plain ASGI endpoints: at a thousand requests per second FastAPI itself would be most of the cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import orjson

from gateway.asgi import (
    Receive,
    Scope,
    Send,
    WhileConnected,
    headers_of,
    read_json,
    send_error,
    send_json,
)
from gateway.attempts import AttemptLoop
from gateway.errors import CallerGone
from gateway.llm.openai_reply import CompletionChoice, Reply, usage_of
from gateway.llm.openai_schema import ChatRequest, CompletionRequest
from gateway.llm.run import LlmAnswer, LlmPrompt, LlmRun
from gateway.request_options import RequestOptions, new_task_id, read_request_options
from gateway.sse import EventStream
from skyshore.domain.task import ServiceClass, Task, TaskKind
from skyshore.ports import ProfilerClient

OpenAiRequest = ChatRequest | CompletionRequest


class LlmEndpoint:
    """One of the two routes, as an ASGI app."""

    def __init__(
        self,
        request_type: type[ChatRequest] | type[CompletionRequest],
        reply: Reply,
        profiler: ProfilerClient,
        attempts: AttemptLoop,
        *,
        origin: str,
        max_body_bytes: int,
        classes: Mapping[str, ServiceClass],
    ) -> None:
        self._request_type, self._reply = request_type, reply
        self._profiler, self._attempts = profiler, attempts
        self._origin, self._max_body_bytes, self._classes = origin, max_body_bytes, classes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived_s = time.monotonic()
        headers = headers_of(scope)
        task_id = new_task_id()
        response_headers = {"x-skyshore-task-id": task_id}
        try:
            options = read_request_options(headers, classes=self._classes)
            response_headers |= {"x-request-id": options.request_id, "traceparent": options.traceparent}
            body = await read_json(headers, receive, self._max_body_bytes)
            request = self._request_type.model_validate_json(body)
            runs = [LlmRun(prompt, self._profiler) for prompt in self._prompts(request, options, task_id, arrived_s)]
            response = _LlmResponse(self._attempts, self._reply, request, runs, response_headers)
            async with WhileConnected(receive):
                await (response.stream(send) if request.stream else response.complete(send))
        except CallerGone:
            return
        except Exception as error:
            await send_error(send, error, response_headers)

    def _prompts(
        self, request: OpenAiRequest, options: RequestOptions, task_id: str, arrived_s: float
    ) -> list[LlmPrompt]:
        return [
            LlmPrompt(
                task=Task(
                    task_id=f"{task_id}-{index}" if index else task_id,
                    kind=TaskKind.LLM,
                    service_class=options.service_class,
                    deadline_s=options.deadline_s,
                    min_quality=options.min_quality,
                    model=request.wanted_model,
                    origin=self._origin,
                    traceparent=options.traceparent,
                ),
                request=prompt,
                arrived_s=arrived_s,
                fit_to_context=not request.names_output_tokens,
            )
            for index, prompt in enumerate(request.inputs())
        ]


class _LlmResponse:
    """The response to one request, with one run and one choice for each answer that was asked for."""

    def __init__(
        self,
        attempts: AttemptLoop,
        reply: Reply,
        request: OpenAiRequest,
        runs: Sequence[LlmRun],
        headers: dict[str, str],
    ) -> None:
        self._attempts, self._reply, self._request, self._runs = attempts, reply, request, runs
        self._response_headers = headers
        self._choices = [CompletionChoice(index) for index in range(len(runs))]
        self._head: dict[str, Any] = {}

    async def complete(self, send: Send) -> None:
        """Answer with one JSON object."""
        answers = await _all(
            [self._collect(run, choice) for run, choice in zip(self._runs, self._choices, strict=True)]
        )
        first = answers[0]
        body = {
            **self._about(first, self._reply.complete),
            "choices": [self._reply.choice(choice) for choice in self._choices],
            "usage": self._usage(),
        }
        queue_ms = f"{first.worker.queue_s * 1000:.3f}"
        await send_json(send, orjson.dumps(body), {**self._headers(first), "x-skyshore-queue-ms": queue_ms})

    async def stream(self, send: Send) -> None:
        """Answer with server-sent events. An error after the first event is sent as the last event."""
        events = EventStream(send)
        try:
            answers = await _all(
                [self._relay(run, choice, events) for run, choice in zip(self._runs, self._choices, strict=True)]
            )
        except Exception as error:
            if not events.started:
                raise
            await events.error(error)
        else:
            if self._request.options.include_usage:
                costs = answers[0].costs()
                for name in ("up_bytes", "down_bytes", "joules"):  # all other figures are those of the first choice
                    costs[name] = sum(float(answer.costs()[name]) for answer in answers)
                body = {**self._head, "choices": [], "usage": self._usage(), "skyshore": costs}
                await events.event(orjson.dumps(body))
            await events.event(b"[DONE]")
        await events.end()

    async def _collect(self, run: LlmRun, choice: CompletionChoice) -> LlmAnswer:
        async with self._attempts.run(run) as answer:
            async for chunk in answer:
                choice.add(chunk)
        return answer

    async def _relay(self, run: LlmRun, choice: CompletionChoice, events: EventStream) -> LlmAnswer:
        options = self._request.options
        async with self._attempts.run(run) as answer:
            if not self._head:
                self._head = self._about(answer, self._reply.part)
            await events.start(self._headers(answer))
            async for chunk in answer:
                part = {**self._head, "choices": [self._reply.delta(choice, chunk)]}
                choice.add(chunk)
                if options.continuous_usage_stats:
                    part["usage"] = self._usage()
                elif options.include_usage:
                    part["usage"] = None
                await events.event(orjson.dumps(part))
        return answer

    def _about(self, answer: LlmAnswer, kind: str) -> dict[str, Any]:
        return {
            "id": self._reply.id_prefix + self._runs[0].task.task_id,
            "object": kind,
            "created": int(time.time()),
            "model": answer.placement.arm.model,
        }

    def _headers(self, answer: LlmAnswer) -> dict[str, str]:
        placement = answer.placement
        return {
            **self._response_headers,
            "x-skyshore-node": placement.arm.node_id,
            "x-skyshore-tier": placement.tier,
            "x-skyshore-policy": placement.policy,
            "x-skyshore-gateway-ms": f"{answer.overhead_s * 1000:.3f}",
        }

    def _usage(self) -> dict[str, Any]:
        return usage_of(self._choices, len(self._choices) // (self._request.n or 1))


async def _all(answers: Sequence[Awaitable[LlmAnswer]]) -> list[LlmAnswer]:
    """Await all concurrently. The first error cancels the others and is raised."""
    if len(answers) == 1:
        return [await answers[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(answer)) for answer in answers]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _awaited(answer: Awaitable[LlmAnswer]) -> LlmAnswer:
    return await answer
