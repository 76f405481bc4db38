"""Nodes that fail under chats: before the first token, at every point of the answer, and again and again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.breaker import FAILURES
from skyshore.domain.errors import Internal, InvalidTask, NodeUnavailable, QueueFull
from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from tests.fakes.gateway_services import FakeNode, World, world
from tests.fakes.memory_store import MemoryStore

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "one two three"}]}
WORDS = tuple(f" w{number}" for number in range(6))


async def chat(w: World, **fields: Any) -> httpx.Response:
    return await w.client.post(CHAT, json={**ASK, **fields})


async def stream(w: World, **fields: Any) -> list[Any]:
    """The data of every event; the last one is "[DONE]" or an error."""
    async with w.client.stream("POST", CHAT, json={**ASK, "stream": True, **fields}) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(events: list[Any]) -> str:
    deltas = [choice["delta"] for event in events if isinstance(event, dict) for choice in event.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def outcomes(w: World) -> list[Any]:
    assert isinstance(w.store, MemoryStore)
    return w.store._outcomes


@pytest.mark.parametrize("error", [NodeUnavailable("gone"), QueueFull("full", retry_after_s=1)])
async def test_a_node_that_fails_before_its_first_token_is_replaced(tmp_path: Path, error: Any) -> None:
    bad, good = FakeNode("bad", fail_with=error), FakeNode("good", Tier.CLOUD)
    async with world(tmp_path, bad, good) as w:
        response = await chat(w)
        assert response.status_code == 200
        assert response.headers["x-skyshore-node"] == "good"
        assert [list(p.avoid_node_ids) for p in w.scheduler.placed] == [[], ["bad"]]
        assert [p.attempt for p in w.scheduler.placed] == [1, 2]
        await w.eventually(lambda: len(outcomes(w)) == 2)
        expected = OutcomeStatus.REJECTED if isinstance(error, QueueFull) else OutcomeStatus.FAILED
        assert [(o.node_id, o.status) for o in outcomes(w)] == [("bad", expected), ("good", OutcomeStatus.OK)]


@pytest.mark.parametrize("error", [NodeUnavailable("gone"), Internal("engine broke")], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("cut", range(len(WORDS) + 1))
async def test_an_answer_that_breaks_off_goes_on_elsewhere_without_repeat_or_gap(
    tmp_path: Path, error: Any, cut: int
) -> None:
    bad, good = FakeNode("bad", words=WORDS, fail_with=error, fail_after=cut), FakeNode("good", words=WORDS)
    async with world(tmp_path, bad, good) as w:
        asked = {"logprobs": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        events = await stream(w, **asked)
        assert events[-1] == "[DONE]"
        assert text_of(events) == "".join(WORDS)
        choices = [event["choices"][0] for event in events[:-1] if event["choices"]]
        tokens = [entry["token"] for choice in choices for entry in choice["logprobs"]["content"]]
        assert tokens == list(WORDS)
        assert [choice["finish_reason"] for choice in choices] == [None] * (len(WORDS) - 1) + ["stop"]
        assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (len(WORDS) - 1)
        assert events[-2]["usage"]["completion_tokens"] == len(WORDS)
        assert events[-2]["usage"]["prompt_tokens"] == 5
        first, second = bad.tasks[0], good.tasks[0]
        assert first.llm == second.llm
        assert first.task.task_id == second.task.task_id, "the task id is the seed of an answer without one"
        assert second.task.deadline_s <= first.task.deadline_s
        await w.eventually(lambda: len(outcomes(w)) == 2)
        assert [(o.node_id, o.status) for o in outcomes(w)] == [
            ("bad", OutcomeStatus.FAILED),
            ("good", OutcomeStatus.OK),
        ]
        body = (await chat(w)).json()
        assert body["choices"][0]["message"]["content"] == "".join(WORDS)
        assert body["usage"]["completion_tokens"] == len(WORDS)


@dataclass
class OtherModel(FakeNode):
    """A node whose arm has another model."""

    model: str = "other"

    @property
    def arms(self) -> Any:
        llm, *others = super().arms
        return (replace(llm, model=self.model), *others)


@pytest.mark.parametrize("cut", [1, 3])
async def test_without_a_node_of_the_same_model_the_stream_ends_with_one_error(tmp_path: Path, cut: int) -> None:
    bad = FakeNode("bad", words=WORDS, fail_with=NodeUnavailable("gone"), fail_after=cut)
    for others in ([], [OtherModel("other", words=WORDS)]):
        async with world(tmp_path, bad, *others) as w:
            events = await stream(w, model="auto")
            assert text_of(events) == "".join(WORDS[:cut])
            assert [event for event in events if event == "[DONE]"] == []
            (failure,) = [event for event in events if "error" in event]
            assert failure is events[-1]
            assert failure["error"]["code"] in ("node_unavailable", "node_died")
            assert all(not other.tasks for other in others)


async def test_an_answer_that_would_be_another_one_ends_with_an_error(tmp_path: Path) -> None:
    bad = FakeNode("bad", words=WORDS, fail_with=NodeUnavailable("gone"), fail_after=3)
    odd = FakeNode("odd", words=(" w0", " w1", " x", " y"))
    short = FakeNode("short", words=(" w0",))
    for other in (odd, short):
        async with world(tmp_path, bad, other) as w:
            events = await stream(w)
            assert text_of(events) == " w0 w1 w2"
            assert events[-1]["error"]["code"] == "node_died"
            assert "answers differently" in events[-1]["error"]["message"]


async def test_a_second_node_that_dies_too_is_followed_by_a_third_and_then_by_an_error(tmp_path: Path) -> None:
    gone = NodeUnavailable("gone")
    first = FakeNode("first", words=WORDS, fail_with=gone, fail_after=2)
    second = FakeNode("second", words=WORDS, fail_with=gone, fail_after=1)
    third = FakeNode("third", words=WORDS)
    async with world(tmp_path, first, second, third) as w:
        events = await stream(w)
        assert (text_of(events), events[-1]) == ("".join(WORDS), "[DONE]")
        third.fail_with, third.fail_after = gone, 4
        events = await stream(w)
        assert text_of(events) == "".join(WORDS[:4])
        assert events[-1]["error"]["code"] == "node_unavailable"


async def test_a_node_that_is_killed_in_the_middle_of_many_answers_costs_none(tmp_path: Path) -> None:
    hold = asyncio.Event()
    victim = FakeNode("victim", words=WORDS, hold=hold, hold_after=3)
    async with world(tmp_path, victim, FakeNode("good", words=WORDS)) as w:
        asking = [asyncio.create_task(stream(w)) for _ in range(20)]
        await w.eventually(lambda: victim.running == 20)
        await w.deps.workers.give_up(victim.address)  # as when its connection breaks
        for events in await asyncio.gather(*asking):
            assert (text_of(events), events[-1]) == ("".join(WORDS), "[DONE]")
        hold.set()


async def test_a_node_that_keeps_failing_is_left_alone_and_asked_again_with_one_probe(tmp_path: Path) -> None:
    bad = FakeNode("bad", fail_with=NodeUnavailable("gone"))
    good = FakeNode("good")

    async def breakers(w: World) -> dict[str, str]:
        nodes = (await w.client.get("/v1/nodes")).json()["nodes"]
        return {node["node_id"]: node["breaker"] for node in nodes}

    async with world(tmp_path, bad, good) as w:
        assert await breakers(w) == {"bad": "closed", "good": "closed"}
        for _ in range(12):
            answer = await chat(w)
            assert (answer.status_code, answer.headers["x-skyshore-node"]) == (200, "good")
        assert len(bad.tasks) == FAILURES
        assert await breakers(w) == {"bad": "open", "good": "closed"}
        assert "skyshore_breakers_open 1.0" in (await w.client.get("/metrics")).text
        bad.fail_with = None

        async def probed() -> bool:
            return (await breakers(w))["bad"] == "half_open"

        await w.eventually(probed)
        answers = await asyncio.gather(*(chat(w) for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert await breakers(w) == {"bad": "closed", "good": "closed"}


async def test_wrong_requests_never_close_a_node_off(tmp_path: Path) -> None:
    node = FakeNode("n", fail_with=InvalidTask("impossible sampling"))
    async with world(tmp_path, node) as w:
        for _ in range(2 * FAILURES):
            assert (await chat(w)).status_code == 400
        assert (await w.client.get("/v1/nodes")).json()["nodes"][0]["breaker"] == "closed"
