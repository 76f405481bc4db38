"""Plays one request against a Skyshore gateway and notes what happened when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from loadgen.http1 import HttpClient, Response
from loadgen.observation import Observation
from loadgen.pacing import RunClock
from loadgen.payloads import Payload
from loadgen.sse import EventParser, ServerEvent
from skyshore.domain.task import TaskKind

GIVE_UP_FACTOR, GIVE_UP_EXTRA_S = 2.0, 10.0
"""The server answers 504 at the deadline; a client that waits much longer waits for a server that is gone."""


class GatewayClient:
    """Sender over HTTP. Its payloads were made before the run."""

    def __init__(self, http: HttpClient, payloads: Mapping[str, Payload]) -> None:
        self._http, self._payloads = http, payloads

    async def send(self, observation: Observation, clock: RunClock) -> None:
        """See `Sender`."""
        arrival = observation.arrival
        payload = self._payloads[arrival.request_id]
        play = self._llm if arrival.kind is TaskKind.LLM else self._video
        observation.t_sent_s = clock.now_s()
        observation.sent_bytes = payload.size_bytes
        try:
            async with asyncio.timeout(GIVE_UP_FACTOR * arrival.deadline_s + GIVE_UP_EXTRA_S):
                await play(observation, payload, clock)
        except TimeoutError:
            observation.fail("client_timeout", clock.now_s())
        except OSError:
            observation.fail("connection_lost", clock.now_s())
        except ValueError:  # orjson's and int's complaint
            observation.fail("unreadable_answer", clock.now_s())

    def close(self) -> None:
        """Drop the idle connections."""
        self._http.close()

    async def _llm(self, observation: Observation, payload: Payload, clock: RunClock) -> None:
        async with self._http.request("POST", payload.path, payload.headers, payload.parts) as response:
            _note_headers(observation, response)
            if response.status != 200:
                return await _note_refusal(observation, response, clock)
            done_s = 0.0
            # Read on to the end of the response, so that the connection can serve the next request.
            async for event in _events(response):
                if event.data == "[DONE]":
                    done_s = clock.now_s()
                    continue
                body = orjson.loads(event.data)
                if "error" in body:
                    return observation.fail(str(body["error"].get("code")), clock.now_s())
                if body.get("choices") and observation.t_first_s is None:
                    observation.t_first_s = clock.now_s()
                _note_usage(observation, body)
            observation.received_bytes = response.received_bytes
            if done_s:
                observation.succeed(done_s)
            else:
                observation.fail("answer_cut_off", clock.now_s())

    async def _video(self, observation: Observation, payload: Payload, clock: RunClock) -> None:
        async with self._http.request("POST", payload.path, payload.headers, payload.parts) as response:
            _note_headers(observation, response)
            if response.status != 202:
                return await _note_refusal(observation, response, clock)
            observation.task_id = str(orjson.loads(await response.read())["task_id"])
            observation.received_bytes += response.received_bytes
        state = await self._until_ended(observation)
        if state.get("state") != "done":
            return observation.fail(str((state.get("error") or {}).get("code", "task_lost")), clock.now_s())
        async with self._http.request("GET", f"/v1/tasks/{observation.task_id}/result") as response:
            if response.status != 200:
                return await _note_refusal(observation, response, clock)
            result = orjson.loads(await response.read())
            observation.received_bytes += response.received_bytes
        _note_segments(observation, result["segments"])
        observation.succeed(clock.now_s())

    async def _until_ended(self, observation: Observation) -> dict[str, Any]:
        """Follow the task's events; the last one tells how it ended."""
        state: dict[str, Any] = {}
        async with self._http.request("GET", f"/v1/tasks/{observation.task_id}/events") as response:
            async with aclosing(_events(response)) as events:
                async for event in events:
                    state = orjson.loads(event.data)
                    if state.get("state") in ("done", "failed", "cancelled"):
                        break
            observation.received_bytes += response.received_bytes
        return state


async def _events(response: Response) -> AsyncGenerator[ServerEvent]:
    parser = EventParser()
    async for chunk in response.chunks():
        for event in parser.feed(chunk):
            yield event


def _note_headers(observation: Observation, response: Response) -> None:
    headers = response.headers
    observation.task_id = headers.get("x-skyshore-task-id", "")
    observation.node_id = headers.get("x-skyshore-node", "")
    observation.tier = headers.get("x-skyshore-tier", "")
    observation.policy = headers.get("x-skyshore-policy", "")
    observation.gateway_s = float(headers.get("x-skyshore-gateway-ms", 0)) / 1e3


async def _note_refusal(observation: Observation, response: Response, clock: RunClock) -> None:
    body = await response.read()
    observation.received_bytes += response.received_bytes
    try:
        code = str(orjson.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = f"http_{response.status}"
    observation.fail(code, clock.now_s(), response.status)


def _note_usage(observation: Observation, body: dict[str, Any]) -> None:
    if usage := body.get("usage"):
        observation.prompt_tokens = int(usage["prompt_tokens"])
        observation.output_tokens = int(usage["completion_tokens"])
    if said := body.get("skyshore"):
        _note_cost(observation, said)


def _note_segments(observation: Observation, segments: Sequence[Mapping[str, Any]]) -> None:
    observation.frames = sum(int(segment["frames"]) for segment in segments)
    observation.node_id, observation.tier, observation.policy = (
        ",".join(sorted({str(segment[name]) for segment in segments})) for name in ("node", "tier", "policy")
    )
    for segment in segments:
        _note_cost(observation, segment)


def _note_cost(observation: Observation, said: Mapping[str, Any]) -> None:
    """Add figures that only the server knows; what it does not say stays zero."""
    observation.queue_s += float(said.get("queue_ms", 0)) / 1e3
    observation.joules += float(said.get("joules", 0))
    observation.link_bytes += int(said.get("up_bytes", 0)) + int(said.get("down_bytes", 0))
    observation.quality = float(said.get("quality", 0))
    sources = {*observation.energy_source.split("+"), str(said.get("energy_source", ""))}
    observation.energy_source = "+".join(sorted(sources - {""}))
