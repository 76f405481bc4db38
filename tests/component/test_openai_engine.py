"""The upstream engine against a server that speaks OpenAI's protocol over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, NotFound, PromptTooLong, QueueFull
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.openai.engine import OpenAiLlmEngine


class FakeUpstream:
    """Answers every POST with `status` and then the lines of `events`; remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.headers, self.events, self.error = 200, "", [], {}
        self.asked: list[tuple[str, dict]] = []
        self.hang = asyncio.Event()
        self.gone = asyncio.Event()
        self.wait_before: int | None = None
        self.cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0
            )
            self.asked.append((head.split()[1], json.loads(await reader.readexactly(length) or b"{}")))
            writer.write(f"HTTP/1.1 {self.status} X\r\nconnection: close\r\n{self.headers}\r\n".encode())
            if self.status != 200:
                writer.write(json.dumps(self.error).encode())
            for index, event in enumerate(self.events if self.status == 200 else ()):
                if index == self.wait_before:
                    self.gone.set() if not await self._peer_stays(reader) else None
                writer.write(f"data: {json.dumps(event)}\n\n".encode())
                await writer.drain()
            if self.status == 200 and not self.cut:
                writer.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.gone.set()
        finally:
            writer.close()

    async def _peer_stays(self, reader: asyncio.StreamReader) -> bool:
        hanging = asyncio.create_task(self.hang.wait())
        reading = asyncio.create_task(reader.read(1))
        await asyncio.wait([hanging, reading], return_when=asyncio.FIRST_COMPLETED)
        stays = hanging.done()
        for task in (hanging, reading):
            task.cancel()
        return stays


@asynccontextmanager
async def upstream(**options) -> AsyncIterator[tuple[FakeUpstream, OpenAiLlmEngine]]:
    behaviour = FakeUpstream()
    server = await asyncio.start_server(behaviour.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = OpenAiLlmEngine("m", f"http://127.0.0.1:{port}/v1", **options)
    try:
        yield behaviour, engine
    finally:
        behaviour.hang.set()
        await engine.close()
        server.close()
        await server.wait_closed()


def delta(text: str, finish: str | None = None) -> dict:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


TASK = Task("t", TaskKind.LLM, deadline_s=100.0)
CHAT = LlmInput(
    messages=(ChatMessage("user", "hi"),), sampling=Sampling(max_tokens=9, temperature=0.0, seed=7, top_k=3)
)
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 4, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}},
}


async def collect(engine: OpenAiLlmEngine, request: LlmInput = CHAT, task: Task = TASK) -> list:
    return [event async for event in engine.generate(task, request)]


async def test_a_chat_is_relayed_with_the_server_s_own_counts():
    async with upstream(key="secret") as (server, engine):
        server.events = [delta("Hello"), delta(" there"), delta("!"), delta("", "stop"), USAGE]
        *chunks, outcome = await collect(engine)
    assert [chunk.text for chunk in chunks] == ["Hello", " there", "!"]
    assert sum(chunk.token_count for chunk in chunks) == 3
    assert (chunks[-1].finish_reason, chunks[-1].prompt_tokens, chunks[-1].cached_tokens) == ("stop", 4, 1)
    assert isinstance(outcome, WorkerOutcome)
    assert (outcome.output_tokens, outcome.prompt_tokens) == (3, 4)
    ((path, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["temperature"], body["seed"], body["max_tokens"], body["top_k"]) == (0.0, 7, 9, 3)
    assert "min_p" not in body, "fields OpenAI does not know are sent only when they are set"


async def test_token_ids_go_to_the_completions_path():
    async with upstream() as (server, engine):
        server.events = [{"choices": [{"text": "ok", "finish_reason": "length"}]}]
        *chunks, _ = await collect(engine, LlmInput(prompt_token_ids=(1, 2)))
    assert server.asked[0][0] == "/v1/completions"
    assert server.asked[0][1]["prompt"] == [1, 2]
    assert [(c.text, c.finish_reason) for c in chunks] == [("ok", "length")]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, PromptTooLong),
        (401, {"error": {"message": "bad key"}}, Internal),
        (404, {"error": {"message": "no such model"}}, NotFound),
        (429, {"error": {"message": "slow down"}}, QueueFull),
        (500, {"detail": "?"}, Internal),
        (503, {"message": "loading"}, NodeUnavailable),
    ],
)
async def test_errors_keep_their_meaning_and_are_not_retried(status, error, kind):
    async with upstream() as (server, engine):
        server.status, server.error, server.headers = status, error, "retry-after: 7\r\n"
        with pytest.raises(kind) as raised:
            await collect(engine)
        assert len(server.asked) == 1
        if kind is QueueFull:
            assert raised.value.retry_after_s == 7.0
        assert engine.load().running == 0


async def test_a_silent_server_runs_into_the_task_s_deadline():
    async with upstream() as (server, engine):
        server.events, server.wait_before = [delta("a"), delta("b", "stop")], 1
        with pytest.raises(DeadlineExceeded):
            await collect(engine, task=Task("t", TaskKind.LLM, deadline_s=0.2))
        await asyncio.wait_for(server.gone.wait(), 60)


async def test_closing_the_iterator_hangs_up_so_that_the_server_stops_too():
    async with upstream(slots=1) as (server, engine):
        server.events, server.wait_before = [delta("a"), delta("b"), delta("c", "stop")], 2
        events = engine.generate(TASK, CHAT)
        assert (await anext(events)).text == "a"
        with pytest.raises(QueueFull):
            await collect(engine)
        await events.aclose()
        await asyncio.wait_for(server.gone.wait(), 60)
        assert engine.load().running == 0


async def test_a_stream_that_breaks_off_is_a_failure_not_an_answer():
    async with upstream() as (server, engine):
        server.events, server.cut = [delta("half an ans")], True
        with pytest.raises(Internal, match="without a finish_reason"):
            await collect(engine)


async def test_nobody_at_the_address_is_said_at_start():
    engine = OpenAiLlmEngine("m", "http://127.0.0.1:9/v1")
    with pytest.raises(NodeUnavailable, match="SKYSHORE_NODE_UPSTREAM_URL"):
        await engine.check()
    await engine.close()
