"""Plays one request against a Skyshore gateway and records what happened when."""

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
    """RequestSender over HTTP. Its payloads were made before the run."""

    def __init__(self, http: HttpClient, payloads: Mapping[str, Payload]) -> None:
        self._http, self._payloads = http, payloads

    async def send(self, observation: Observation, clock: RunClock) -> None:
        """See `RequestSender`."""
        arrival = observation.arrival
        payload = self._payloads[arrival.request_id]
        play = self._llm if arrival.kind is TaskKind.LLM else self._video
        observation.own |= {"t_sent_s": clock.now_s(), "sent_bytes": payload.size_bytes, "received_bytes": 0}
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
                if body.get("choices") and "ttft_s" not in observation.outcome:
                    observation.outcome["ttft_s"] = clock.now_s() - observation.arrival.t_intended_s
                _note_usage(observation, body)
            observation.own["received_bytes"] = response.received_bytes
            if done_s:
                observation.succeed(done_s)
            else:
                observation.fail("answer_cut_off", clock.now_s())

    async def _video(self, observation: Observation, payload: Payload, clock: RunClock) -> None:
        async with self._http.request("POST", payload.path, payload.headers, payload.parts) as response:
            _note_headers(observation, response)
            if response.status != 202:
                return await _note_refusal(observation, response, clock)
            observation.outcome["task_id"] = str(orjson.loads(await response.read())["task_id"])
            observation.own["received_bytes"] += response.received_bytes
        state = await self._until_ended(observation)
        if state.get("state") != "done":
            return observation.fail(str((state.get("error") or {}).get("code", "task_lost")), clock.now_s())
        async with self._http.request("GET", f"/v1/tasks/{observation.outcome['task_id']}/result") as response:
            if response.status != 200:
                return await _note_refusal(observation, response, clock)
            result = orjson.loads(await response.read())
            observation.own["received_bytes"] += response.received_bytes
        _note_segments(observation, result["segments"])
        observation.succeed(clock.now_s())

    async def _until_ended(self, observation: Observation) -> dict[str, Any]:
        """Follow the task's events; the last one says how it ended."""
        state: dict[str, Any] = {}
        async with self._http.request("GET", f"/v1/tasks/{observation.outcome['task_id']}/events") as response:
            async with aclosing(_events(response)) as events:
                async for event in events:
                    state = orjson.loads(event.data)
                    if state.get("state") in ("done", "failed", "cancelled"):
                        break
            observation.own["received_bytes"] += response.received_bytes
        return state


async def _events(response: Response) -> AsyncGenerator[ServerEvent]:
    parser = EventParser()
    async for chunk in response.chunks():
        for event in parser.feed(chunk):
            yield event


def _note_headers(observation: Observation, response: Response) -> None:
    headers = response.headers
    observation.outcome |= {
        "task_id": headers.get("x-skyshore-task-id", ""),
        "node_id": headers.get("x-skyshore-node", ""),
        "gateway_s": float(headers.get("x-skyshore-gateway-ms", 0)) / 1e3,
    }
    observation.own |= {
        "tier": headers.get("x-skyshore-tier", ""),
        "policy": headers.get("x-skyshore-policy", ""),
    }


async def _note_refusal(observation: Observation, response: Response, clock: RunClock) -> None:
    body = await response.read()
    observation.own["received_bytes"] += response.received_bytes
    try:
        code = str(orjson.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = f"http_{response.status}"
    observation.fail(code, clock.now_s(), response.status)


def _note_usage(observation: Observation, body: dict[str, Any]) -> None:
    if usage := body.get("usage"):
        observation.worker |= {
            "prompt_tokens": int(usage["prompt_tokens"]),
            "output_tokens": int(usage["completion_tokens"]),
        }
    if cost := body.get("skyshore"):
        _note_cost(observation, cost)


def _note_segments(observation: Observation, segments: Sequence[Mapping[str, Any]]) -> None:
    observation.worker["frames"] = sum(int(segment["frames"]) for segment in segments)
    node_id, tier, policy = (
        ",".join(sorted({str(segment[name]) for segment in segments})) for name in ("node", "tier", "policy")
    )
    observation.outcome["node_id"] = node_id
    observation.own |= {"tier": tier, "policy": policy}
    for segment in segments:
        _note_cost(observation, segment)


def _note_cost(observation: Observation, cost: Mapping[str, Any]) -> None:
    """Add figures that only the server knows; what it does not report stays zero."""
    own, outcome, worker = observation.own, observation.outcome, observation.worker
    own["unsplit_joules"] = own.get("unsplit_joules", 0.0) + float(cost.get("joules", 0))
    for name in ("up_bytes", "down_bytes"):
        outcome[name] = outcome.get(name, 0) + int(cost.get(name, 0))
    outcome["quality"] = float(cost.get("quality", 0))
    worker["queue_s"] = worker.get("queue_s", 0.0) + float(cost.get("queue_ms", 0)) / 1e3
    sources = {*worker.get("energy_source", "").split("+"), str(cost.get("energy_source", ""))} - {""}
    worker["energy_source"] = "+".join(sorted(sources))
