"""Plays one request against a Skyshore gateway and records what happened when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from loadgen.http1 import HttpClient, Response
from loadgen.observation import fail, note, note_worker, succeed
from loadgen.pacing import RunClock
from loadgen.payloads import Payload
from loadgen.sse import EventParser, ServerEvent
from skyshore.domain.task import TaskKind
from skyshore.report.request_record import RequestRecord

GIVE_UP_FACTOR, GIVE_UP_EXTRA_S = 2.0, 10.0
"""The server answers 504 at the deadline; a client that waits much longer waits for a server that is gone."""


class GatewayClient:
    """RequestSender over HTTP. Its payloads were made before the run."""

    def __init__(self, http: HttpClient, payloads: Mapping[str, Payload]) -> None:
        self._http, self._payloads = http, payloads

    async def send(self, record: RequestRecord, clock: RunClock) -> None:
        """See `RequestSender`."""
        payload = self._payloads[record.request_id]
        play = self._llm if record.kind is TaskKind.LLM else self._video
        record.t_sent_s = clock.now_s()
        record.sent_bytes = payload.size_bytes
        try:
            async with asyncio.timeout(GIVE_UP_FACTOR * record.deadline_s + GIVE_UP_EXTRA_S):
                await play(record, payload, clock)
        except TimeoutError:
            fail(record, "client_timeout", clock.now_s())
        except OSError:
            fail(record, "connection_lost", clock.now_s())
        except ValueError:  # orjson's and int's complaint
            fail(record, "unreadable_answer", clock.now_s())

    def close(self) -> None:
        """Drop the idle connections."""
        self._http.close()

    async def _llm(self, record: RequestRecord, payload: Payload, clock: RunClock) -> None:
        async with self._http.request("POST", payload.path, payload.headers, payload.parts) as response:
            _note_headers(record, response)
            if response.status != 200:
                return await _note_refusal(record, response, clock)
            done_s = 0.0
            # Read on to the end of the response, so that the connection can serve the next request.
            async for event in _events(response):
                if event.data == "[DONE]":
                    done_s = clock.now_s()
                    continue
                body = orjson.loads(event.data)
                if "error" in body:
                    return fail(record, str(body["error"].get("code")), clock.now_s())
                if body.get("choices") and not record.outcome.ttft_s:
                    note(record, ttft_s=clock.now_s() - record.t_intended_s)
                _note_usage(record, body)
            record.received_bytes = response.received_bytes
            if done_s:
                succeed(record, done_s)
            else:
                fail(record, "answer_cut_off", clock.now_s())

    async def _video(self, record: RequestRecord, payload: Payload, clock: RunClock) -> None:
        async with self._http.request("POST", payload.path, payload.headers, payload.parts) as response:
            _note_headers(record, response)
            if response.status != 202:
                return await _note_refusal(record, response, clock)
            note(record, task_id=str(orjson.loads(await response.read())["task_id"]))
            record.received_bytes += response.received_bytes
        state = await self._until_ended(record)
        if state.get("state") != "done":
            return fail(record, str((state.get("error") or {}).get("code", "task_lost")), clock.now_s())
        async with self._http.request("GET", f"/v1/tasks/{record.outcome.task_id}/result") as response:
            if response.status != 200:
                return await _note_refusal(record, response, clock)
            result = orjson.loads(await response.read())
            record.received_bytes += response.received_bytes
        _note_segments(record, result["segments"])
        succeed(record, clock.now_s())

    async def _until_ended(self, record: RequestRecord) -> dict[str, Any]:
        """Follow the task's events; the last one says how it ended."""
        state: dict[str, Any] = {}
        async with self._http.request("GET", f"/v1/tasks/{record.outcome.task_id}/events") as response:
            async with aclosing(_events(response)) as events:
                async for event in events:
                    state = orjson.loads(event.data)
                    if state.get("state") in ("done", "failed", "cancelled"):
                        break
            record.received_bytes += response.received_bytes
        return state


async def _events(response: Response) -> AsyncGenerator[ServerEvent]:
    parser = EventParser()
    async for chunk in response.chunks():
        for event in parser.feed(chunk):
            yield event


def _note_headers(record: RequestRecord, response: Response) -> None:
    headers = response.headers
    note(
        record,
        task_id=headers.get("x-skyshore-task-id", ""),
        node_id=headers.get("x-skyshore-node", ""),
        gateway_s=float(headers.get("x-skyshore-gateway-ms", 0)) / 1e3,
    )
    record.tier = headers.get("x-skyshore-tier", "")
    record.policy = headers.get("x-skyshore-policy", "")


async def _note_refusal(record: RequestRecord, response: Response, clock: RunClock) -> None:
    body = await response.read()
    record.received_bytes += response.received_bytes
    try:
        code = str(orjson.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = f"http_{response.status}"
    fail(record, code, clock.now_s(), response.status)


def _note_usage(record: RequestRecord, body: dict[str, Any]) -> None:
    if usage := body.get("usage"):
        note_worker(record, prompt_tokens=int(usage["prompt_tokens"]), output_tokens=int(usage["completion_tokens"]))
    if cost := body.get("skyshore"):
        _note_cost(record, cost)


def _note_segments(record: RequestRecord, segments: Sequence[Mapping[str, Any]]) -> None:
    note_worker(record, frames=sum(int(segment["frames"]) for segment in segments))
    node_id, record.tier, record.policy = (
        ",".join(sorted({str(segment[name]) for segment in segments})) for name in ("node", "tier", "policy")
    )
    note(record, node_id=node_id)
    for segment in segments:
        _note_cost(record, segment)


def _note_cost(record: RequestRecord, cost: Mapping[str, Any]) -> None:
    """Add figures that only the server knows; what it does not report stays zero."""
    outcome, worker = record.outcome, record.worker
    sources = {*worker.energy_source.split("+"), str(cost.get("energy_source", ""))} - {""}
    record.unsplit_joules += float(cost.get("joules", 0))
    note(
        record,
        up_bytes=outcome.up_bytes + int(cost.get("up_bytes", 0)),
        down_bytes=outcome.down_bytes + int(cost.get("down_bytes", 0)),
        quality=float(cost.get("quality", 0)),
        worker=replace(
            worker,
            queue_s=worker.queue_s + float(cost.get("queue_ms", 0)) / 1e3,
            energy_source="+".join(sorted(sources)),
        ),
    )
