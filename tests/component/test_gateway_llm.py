"""The LLM routes: a real gateway on a real port before real gRPC services."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from skyshore.domain.errors import InvalidTask, QueueFull
from skyshore.domain.job import TaskState
from skyshore.domain.node import Link
from skyshore.domain.outcome import OutcomeStatus
from skyshore.links.framing import REPLY_BYTES, TOKEN_BYTES
from tests.fakes.gateway_services import FakeNode, World, world
from tests.fakes.memory_store import MemoryStore

CHAT = "/v1/chat/completions"
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "one two three"}]}


async def chat(w: World, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return await w.client.post(CHAT, json={**ASK, **fields}, headers=headers)


async def sse(w: World, path: str = CHAT, **fields: Any) -> list[Any]:
    body = {**(ASK if path == CHAT else {"prompt": "one"}), "stream": True, **fields}
    async with w.client.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_chat_answers_whole_in_openai_form_and_names_where_it_ran(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("shore-1")) as w:
        response = await chat(w, headers={"x-request-id": "req-7"})
        body = response.json()
        assert response.status_code == 200
        assert body["object"] == "chat.completion"
        assert body["model"] == "tiny"
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello big world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"] == {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
        }
        headers = response.headers
        assert headers["x-skyshore-node"] == "shore-1"
        assert headers["x-skyshore-tier"] == "edge"
        assert headers["x-skyshore-policy"] == "first"
        assert headers["x-skyshore-queue-ms"] == "4.000"
        assert 0 < float(headers["x-skyshore-gateway-ms"]) < 5000
        assert headers["x-request-id"] == "req-7"
        assert body["id"].endswith(headers["x-skyshore-task-id"])


async def test_chat_streams_chunks_and_usage_when_asked(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        events = await sse(w, stream_options={"include_usage": True})
        deltas = [event["choices"][0]["delta"] for event in events[:-1]]
        assert deltas[0] == {"role": "assistant", "content": "Hello"}
        assert "".join(delta["content"] for delta in deltas) == "Hello big world"
        assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None, None, "stop"]
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["total_tokens"] == 8
        plain = await sse(w)
        assert all("usage" not in event for event in plain)


async def test_completion_takes_text_ids_and_lists_of_either(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        for prompt, choices in (("say it", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1], [2, 3]], 2)):
            response = await w.client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 2})
            body = response.json()
            assert response.status_code == 200, body
            assert body["object"] == "text_completion"
            assert [c["text"] for c in body["choices"]] == ["Hello big"] * choices
            assert [c["finish_reason"] for c in body["choices"]] == ["length"] * choices
            assert body["usage"]["prompt_tokens"] == 5 * choices
        assert list(w.nodes[0].tasks[1].llm.token_ids.ids) == [1, 2, 3]
        events = await sse(w, "/v1/completions")
        assert "".join(e["choices"][0]["text"] for e in events) == "Hello big world"


async def test_sampling_reaches_the_node_as_asked(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        await chat(
            w, temperature=0, top_p=0.5, seed=-3, stop="END", max_completion_tokens=7, top_k=5, min_p=0.25,
            presence_penalty=1.5, frequency_penalty=-1.5, repetition_penalty=1.5, ignore_eos=True,
            logprobs=True, top_logprobs=2, response_format={"type": "json_object"},
        )  # fmt: skip
        s = w.nodes[0].tasks[0].llm.sampling
        assert (s.temperature, s.top_p, s.seed, list(s.stop), s.max_tokens) == (0, 0.5, -3, ["END"], 7)
        assert (s.top_k, s.min_p, s.presence_penalty, s.frequency_penalty) == (5, 0.25, 1.5, -1.5)
        assert (s.repetition_penalty, s.ignore_eos, s.logprobs) == (1.5, True, 2)
        assert json.loads(s.json_schema) == {"type": "object"}
        await chat(w)
        s = w.nodes[0].tasks[1].llm.sampling
        assert (s.temperature, s.top_p, s.max_tokens) == (1, 1, 97)  # the context of 100 less a prompt of 3
        assert not s.HasField("seed")
        assert not s.HasField("logprobs")


async def test_logprobs_in_both_forms(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        choice = (await chat(w, logprobs=True, top_logprobs=2)).json()["choices"][0]
        first = choice["logprobs"]["content"][0]
        assert (first["token"], first["logprob"], first["bytes"]) == ("Hello", -0.5, list(b"Hello"))
        assert [top["token"] for top in first["top_logprobs"]] == ["Hello", "x"]
        response = await w.client.post("/v1/completions", json={"prompt": "a", "logprobs": 2})
        logprobs = response.json()["choices"][0]["logprobs"]
        assert logprobs["tokens"] == ["Hello", " big", " world"]
        assert logprobs["text_offset"] == [0, 5, 9]
        assert logprobs["top_logprobs"][0] == {"Hello": -0.5, "x": -1.5}
        events = await sse(w, "/v1/completions", logprobs=1)
        assert [e["choices"][0]["logprobs"]["text_offset"] for e in events] == [[0], [5], [9]]


async def test_n_choices_differ_in_seed_and_count_the_prompt_once(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        body = (await chat(w, n=3, seed=40)).json()
        assert [c["index"] for c in body["choices"]] == [0, 1, 2]
        assert {t.llm.sampling.seed for t in w.nodes[0].tasks} == {40, 41, 42}
        assert len({t.task.task_id for t in w.nodes[0].tasks}) == 3
        assert body["usage"]["prompt_tokens"] == 5
        assert body["usage"]["completion_tokens"] == 9
        events = await sse(w, n=2)
        texts = {0: "", 1: ""}
        for event in events:
            texts[event["choices"][0]["index"]] += event["choices"][0]["delta"].get("content", "")
        assert texts == {0: "Hello big world", 1: "Hello big world"}


async def test_demands_and_trace_travel_with_the_task(tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with world(tmp_path, FakeNode("n"), gateway_origin="harbour") as w:
        headers = {
            "X-Skyshore-Class": "batch",
            "X-Skyshore-Deadline-S": "12.5",
            "X-Skyshore-Min-Quality": "0.25",
            "traceparent": trace,
        }
        response = await chat(w, headers=headers)
        task = w.scheduler.placed[0].task
        assert (task.service_class, task.deadline_s, task.min_quality) == ("batch", 12.5, 0.25)
        assert (task.origin, task.model, task.traceparent) == ("harbour", "tiny", trace)
        assert w.nodes[0].tasks[0].task.traceparent == trace
        assert 0 < w.nodes[0].tasks[0].task.deadline_s < 12.5  # what the way here used is taken off
        assert response.headers["traceparent"] == trace
        response = await chat(w, headers={"traceparent": "00-broken", "X-Skyshore-Class": "interactive"})
        assert w.scheduler.placed[1].task.deadline_s == 20
        assert response.headers["traceparent"].startswith("00-")
        assert response.headers["traceparent"] != "00-broken"


async def test_openai_client_streams_a_chat(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    async with world(tmp_path, FakeNode("n")) as w:
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none", max_retries=0)
        messages = [{"role": "user", "content": "hi"}]
        stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(text) == "Hello big world"
        whole = await client.completions.create(model="tiny", prompt="hi")
        assert whole.choices[0].text == "Hello big world"
        assert [model.id async for model in client.models.list()] == ["actions", "boxes", "tiny"]
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nobody", messages=messages)
        assert caught.value.code == "not_found"
        assert caught.value.param == "model"
        await client.close()


async def test_a_node_that_is_not_there_at_all_is_replaced(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("dead"), FakeNode("good")) as w:
        w.nodes[0].address = "127.0.0.1:1"
        response = await chat(w)
        assert response.status_code == 200
        assert response.headers["x-skyshore-node"] == "good"


def outcomes(w: World) -> list[Any]:
    assert isinstance(w.store, MemoryStore)
    return w.store._outcomes


async def test_the_bytes_of_a_task_are_charged_what_its_nodes_link_costs(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        await w.store.report_links({"n": Link(rtt_s=0.01, joules_per_byte=0.25)}, lease_s=60.0)

        asked = 0

        async def charged() -> bool:
            nonlocal asked
            asked += 1
            usage = (await sse(w, stream_options={"include_usage": True}))[-1]
            return usage["skyshore"]["transmission_joules"] > 0

        async with asyncio.timeout(60):
            while not await charged():  # noqa: ASYNC110 - the gateway looks at the store once a second
                await asyncio.sleep(0.1)
        await w.eventually(lambda: len(outcomes(w)) == asked)
        outcome = outcomes(w)[-1]
        assert outcome.transmission_joules == 0.25 * (outcome.up_bytes + outcome.down_bytes) > 0


async def test_outcome_and_record_tell_what_the_task_cost(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        response = await chat(w, headers={"X-Skyshore-Class": "batch"})
        await w.eventually(lambda: outcomes(w))
        (outcome,) = outcomes(w)
        assert outcome.task_id == response.headers["x-skyshore-task-id"]
        assert (outcome.arm_id, outcome.status, outcome.service_class) == ("n/tiny", OutcomeStatus.OK, "batch")
        assert 0 < outcome.gateway_s <= outcome.ttft_s <= outcome.latency_s < 100
        assert (outcome.quality, outcome.deadline_s) == (0.5, 600.0)
        assert (outcome.worker.queue_s, outcome.worker.output_tokens) == (0.004, 3)
        assert outcome.up_bytes > 50
        assert outcome.down_bytes == REPLY_BYTES + 3 * TOKEN_BYTES + len("Hello big world")
        assert outcome.transmission_joules == 0.0
        record = await w.store.task(outcome.task_id)
        assert record
        assert (record.state, record.progress, record.node_ids) == (TaskState.DONE, 1.0, ("n",))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sent_before", [0, 1])
async def test_a_caller_that_leaves_frees_the_node(tmp_path: Path, stream: bool, sent_before: int) -> None:
    node = FakeNode("n", hold=asyncio.Event(), hold_after=sent_before)
    async with world(tmp_path, node) as w:
        body = json.dumps({**ASK, "stream": stream}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await w.eventually(lambda: node.running == 1)
        if stream and sent_before:
            assert b"Hello" in await asyncio.wait_for(reader.readuntil(b"\n\n\r\n"), 60)
        writer.close()
        await w.eventually(lambda: node.running == 0)
        await w.eventually(lambda: outcomes(w))
        assert outcomes(w)[0].status is OutcomeStatus.CANCELLED
        assert (await chat(w, headers={"X-Skyshore-Deadline-S": "0.2"})).status_code == 504


async def test_a_missed_deadline_is_504_and_cancels_the_node(tmp_path: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path, node) as w:
        response = await chat(w, headers={"X-Skyshore-Deadline-S": "0.2"})
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        await w.eventually(lambda: node.running == 0)
        await w.eventually(lambda: outcomes(w))
        assert outcomes(w)[0].status is OutcomeStatus.DEADLINE_EXCEEDED


async def test_the_deadline_holds_for_a_stream_under_way(tmp_path: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event(), hold_after=2)
    async with world(tmp_path, node) as w:
        headers = {"X-Skyshore-Deadline-S": "0.3"}
        async with w.client.stream("POST", CHAT, json={**ASK, "stream": True}, headers=headers) as response:
            lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
        assert json.loads(lines[-1])["error"]["code"] == "deadline_exceeded"
        await w.eventually(lambda: node.running == 0)


async def test_full_queue_is_429_with_retry_after(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        w.scheduler.fail_with = QueueFull("all full", retry_after_s=2.3)
        response = await chat(w)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
        assert response.json()["error"] == {
            "message": "all full",
            "type": "rate_limit_error",
            "code": "queue_full",
            "param": None,
        }


async def test_the_only_node_being_full_is_429_too(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n", fail_with=QueueFull("its queue is full", retry_after_s=4))) as w:
        response = await chat(w)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "4"


async def test_no_node_is_503(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        response = await chat(w)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "node_unavailable"
        assert response.headers["retry-after"] == "2"


async def test_store_down_answers_all_the_same(tmp_path: Path) -> None:
    store = MemoryStore()
    async with world(tmp_path, FakeNode("n"), store=store) as w:
        store.reachable = False
        assert (await chat(w)).status_code == 200
        store.reachable = True
        await w.eventually(lambda: outcomes(w))


async def test_a_callers_mistake_found_by_the_node_does_not_count_against_the_arm(tmp_path: Path) -> None:
    node = FakeNode("n", fail_with=InvalidTask("bad schema", param="response_format"))
    async with world(tmp_path, node) as w:
        response = await chat(w)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "response_format"
        await w.eventually(lambda: outcomes(w))
        assert outcomes(w)[0].status is OutcomeStatus.CANCELLED
        record = await w.store.task(outcomes(w)[0].task_id)
        assert record
        assert record.state is TaskState.FAILED


async def test_slow_reader_pauses_the_node_instead_of_filling_memory(tmp_path: Path) -> None:
    node = FakeNode("n", words=("x" * 2000,) * 20_000, context_tokens=10**6)
    async with world(tmp_path, node) as w:
        body = json.dumps({**ASK, "stream": True, "max_tokens": 20_000}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port, limit=1024)
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        # Others are served meanwhile, and the 40 MB answer is not made ahead of its reader.
        for _ in range(20):
            assert (await chat(w, max_tokens=1)).status_code == 200
        assert node.running == 1
        writer.close()
        await w.eventually(lambda: node.running == 0)
