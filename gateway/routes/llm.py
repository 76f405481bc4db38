"""/v1/chat/completions and /v1/completions: OpenAI's words in, our tasks out, and back.

Plain ASGI endpoints: at a thousand requests a second the framework's dependency machinery is most of the cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import orjson

from gateway.asgi import (
    EventStream,
    Receive,
    Scope,
    Send,
    WhileConnected,
    headers_of,
    read_json,
    send_error,
    send_json,
)
from gateway.errors import CallerGone, as_domain, error_object
from gateway.llm.dispatch import Answer, Dispatcher, LlmJob
from gateway.llm.openai_reply import Choice, Reply, usage_of
from gateway.llm.openai_schema import ChatRequest, CompletionRequest
from gateway.request_options import Demands, new_task_id, read_demands
from skyshore.domain.task import ServiceClass, Task, TaskKind

OpenAiRequest = ChatRequest | CompletionRequest


class LlmEndpoint:
    """One of the two routes, as an ASGI app."""

    def __init__(
        self,
        request_type: type[ChatRequest] | type[CompletionRequest],
        reply: Reply,
        dispatcher: Dispatcher,
        *,
        origin: str,
        max_body_bytes: int,
        classes: Mapping[str, ServiceClass],
    ) -> None:
        self._request_type, self._reply, self._dispatcher = request_type, reply, dispatcher
        self._origin, self._max_body_bytes, self._classes = origin, max_body_bytes, classes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived_s = time.monotonic()
        headers = headers_of(scope)
        task_id = new_task_id()
        told = {"x-skyshore-task-id": task_id}
        try:
            demands = read_demands(headers, classes=self._classes)
            told |= {"x-request-id": demands.request_id, "traceparent": demands.traceparent}
            body = await read_json(headers, receive, self._max_body_bytes)
            request = self._request_type.model_validate_json(body)
            jobs = self._jobs(request, demands, task_id, arrived_s)
            work = _Work(self._dispatcher, self._reply, request, jobs, told)
            async with WhileConnected(receive):
                await (work.stream(send) if request.stream else work.whole(send))
        except CallerGone:
            return
        except Exception as error:
            await send_error(send, error, told)

    def _jobs(self, request: OpenAiRequest, demands: Demands, task_id: str, arrived_s: float) -> list[LlmJob]:
        return [
            LlmJob(
                task=Task(
                    task_id=f"{task_id}-{index}" if index else task_id,
                    kind=TaskKind.LLM,
                    service_class=demands.service_class,
                    deadline_s=demands.deadline_s,
                    min_quality=demands.min_quality,
                    model=request.wanted_model,
                    origin=self._origin,
                    traceparent=demands.traceparent,
                ),
                request=prompt,
                arrived_s=arrived_s,
                fit_to_context=not request.names_output_tokens,
            )
            for index, prompt in enumerate(request.inputs())
        ]


class _Work:
    """One request while it is answered: one job and one choice per answer asked for."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        reply: Reply,
        request: OpenAiRequest,
        jobs: Sequence[LlmJob],
        told: dict[str, str],
    ) -> None:
        self._dispatcher, self._reply, self._request, self._jobs, self._told = dispatcher, reply, request, jobs, told
        self._choices = [Choice(index) for index in range(len(jobs))]
        self._head: dict[str, Any] = {}

    async def whole(self, send: Send) -> None:
        """Answer with one JSON object."""
        answers = await _all(
            [self._collect(job, choice) for job, choice in zip(self._jobs, self._choices, strict=True)]
        )
        first = answers[0]
        body = {
            **self._about(first, self._reply.whole),
            "choices": [self._reply.choice(choice) for choice in self._choices],
            "usage": self._usage(),
        }
        queue_ms = f"{first.worker.queue_s * 1000:.3f}"
        await send_json(send, orjson.dumps(body), {**self._headers(first), "x-skyshore-queue-ms": queue_ms})

    async def stream(self, send: Send) -> None:
        """Answer with server-sent events. A failure after the first one becomes the last one."""
        events = EventStream(send)
        try:
            answers = await _all(
                [self._relay(job, choice, events) for job, choice in zip(self._jobs, self._choices, strict=True)]
            )
        except Exception as error:
            if not events.started:
                raise
            await events.event(orjson.dumps(error_object(as_domain(error))))
        else:
            if self._request.options.include_usage:
                costs = answers[0].costs()
                for name in ("up_bytes", "down_bytes", "joules"):  # the rest is that of the first choice
                    costs[name] = sum(float(answer.costs()[name]) for answer in answers)
                body = {**self._head, "choices": [], "usage": self._usage(), "skyshore": costs}
                await events.event(orjson.dumps(body))
            await events.event(b"[DONE]")
        await events.end()

    async def _collect(self, job: LlmJob, choice: Choice) -> Answer:
        async with self._dispatcher.answer(job) as answer:
            async for chunk in answer:
                choice.add(chunk)
        return answer

    async def _relay(self, job: LlmJob, choice: Choice, events: EventStream) -> Answer:
        options = self._request.options
        async with self._dispatcher.answer(job) as answer:
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

    def _about(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {
            "id": self._reply.id_prefix + self._jobs[0].task.task_id,
            "object": kind,
            "created": int(time.time()),
            "model": answer.placement.arm.model,
        }

    def _headers(self, answer: Answer) -> dict[str, str]:
        placement = answer.placement
        return {
            **self._told,
            "x-skyshore-node": placement.arm.node_id,
            "x-skyshore-tier": placement.tier,
            "x-skyshore-policy": placement.policy,
            "x-skyshore-gateway-ms": f"{answer.overhead_s * 1000:.3f}",
        }

    def _usage(self) -> dict[str, Any]:
        return usage_of(self._choices, len(self._choices) // (self._request.n or 1))


async def _all(answers: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """Await all at the same time; the first failure cancels the rest and is raised itself."""
    if len(answers) == 1:
        return [await answers[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(answer)) for answer in answers]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _awaited(answer: Awaitable[Answer]) -> Answer:
    return await answer
