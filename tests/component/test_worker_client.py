"""The worker client against a real gRPC node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from skyshore.adapters.worker_client import GrpcWorkerClient, WorkerPool
from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, NodeUnavailable, PromptTooLong, QueueFull
from skyshore.domain.llm import FinishReason, LlmInput, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import EncodedFrame, FrameDetections, SegmentInfo
from tests.fakes.gateway_services import FakeNode, serving_node

LLM = Task("t1", TaskKind.LLM, deadline_s=100.0)
VIDEO = Task("v1", TaskKind.VIDEO_DETECT, deadline_s=100.0, job_id="job")
INFO = SegmentInfo(0, 400, 640, 480)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode("n")


@pytest.fixture
async def client(node: FakeNode) -> AsyncIterator[GrpcWorkerClient]:
    async with serving_node(node):
        client = GrpcWorkerClient(node.address)
        yield client
        await client.close()


async def frames(count: int, size: int = 20_000) -> AsyncIterator[EncodedFrame]:
    for number in range(count):
        yield EncodedFrame(number, number / 10, bytes(size))


async def collect(events: Any) -> list[Any]:
    async with aclosing(events):
        return [event async for event in events]


async def vanished(node: FakeNode) -> None:
    async with asyncio.timeout(60):
        while node.running:  # noqa: ASYNC110 - the node's own counter has no event
            await asyncio.sleep(0.01)


async def test_text_arrives_in_chunks_and_ends_with_the_outcome(client: GrpcWorkerClient) -> None:
    *chunks, outcome = await collect(client.execute(LLM, "n/tiny", LlmInput(prompt="hi")))
    assert [chunk.text for chunk in chunks] == ["Hello", " big", " world"]
    assert chunks[-1] == TokenChunk(" world", 1, (), FinishReason.STOP, 5, 2)
    assert isinstance(outcome, WorkerOutcome)
    assert outcome.output_tokens == 3


async def test_segment_arrives_whole_and_ends_with_the_outcome(client: GrpcWorkerClient, node: FakeNode) -> None:
    *found, outcome = await collect(client.execute_segment(VIDEO, "n/boxes", INFO, frames(400)))
    assert [frame.frame_index for frame in found] == list(range(400))
    assert isinstance(found[0], FrameDetections)
    assert outcome.frames == 400
    assert node.frame_bytes == 400 * 20_000
    assert node.segments[0].task.job_id == "job"


@pytest.mark.parametrize(
    "error",
    [InvalidMedia("no picture", param="frame"), QueueFull("full", retry_after_s=2.5), PromptTooLong("long")],
)
@pytest.mark.parametrize("after", [0, 2, 50])
async def test_error_of_a_segment_crosses_whole_while_frames_are_still_sent(
    client: GrpcWorkerClient, node: FakeNode, error: Any, after: int
) -> None:
    node.fail_with, node.fail_after = error, after
    for _ in range(5):  # grpc.aio loses the status in some of the races between write and end
        with pytest.raises(type(error)) as caught:
            await collect(client.execute_segment(VIDEO, "n/boxes", INFO, frames(400)))
        assert (caught.value.message, caught.value.param) == (error.message, error.param)
        assert caught.value.retry_after_s == error.retry_after_s


async def test_error_of_the_senders_own_frames_is_raised_and_ends_the_call(
    client: GrpcWorkerClient, node: FakeNode
) -> None:
    async def broken() -> AsyncIterator[EncodedFrame]:
        yield EncodedFrame(0, 0.0, b"x")
        raise InvalidMedia("the clip broke off")

    with pytest.raises(InvalidMedia, match="broke off"):
        await collect(client.execute_segment(VIDEO, "n/boxes", INFO, broken()))
    await vanished(node)


async def test_deadline_ends_a_segment_and_a_text(client: GrpcWorkerClient, node: FakeNode) -> None:
    node.hold = asyncio.Event()
    short = Task("t", TaskKind.VIDEO_DETECT, deadline_s=0.2)
    with pytest.raises(DeadlineExceeded):
        await collect(client.execute_segment(short, "n/boxes", INFO, frames(3)))
    with pytest.raises(DeadlineExceeded):
        await collect(client.execute(short, "n/tiny", LlmInput(prompt="x")))
    await vanished(node)


async def test_leaving_a_segment_early_cancels_it(client: GrpcWorkerClient, node: FakeNode) -> None:
    async with aclosing(client.execute_segment(VIDEO, "n/boxes", INFO, frames(400))) as events:
        await anext(events)
    await vanished(node)
    assert client.open_calls == 0


async def test_node_that_is_away_is_unavailable() -> None:
    node = FakeNode("n")
    async with serving_node(node):
        client = GrpcWorkerClient(node.address)
        await collect(client.execute(LLM, "n/tiny", LlmInput(prompt="x")))
    with pytest.raises(NodeUnavailable):
        await collect(client.execute(LLM, "n/tiny", LlmInput(prompt="x")))
    with pytest.raises(NodeUnavailable):
        await collect(client.execute_segment(VIDEO, "n/boxes", INFO, frames(3)))
    await client.close()


async def test_calls_on_a_node_that_was_given_up_fail_as_unavailable_and_the_caller_is_not_cancelled() -> None:
    node = FakeNode("lost", hold=asyncio.Event())
    async with serving_node(node):
        pool = WorkerPool()
        client = pool.client(node.address)
        text = asyncio.create_task(collect(client.execute(LLM, "lost/tiny", LlmInput(prompt="x"))))
        segment = asyncio.create_task(collect(client.execute_segment(VIDEO, "lost/boxes", INFO, frames(3))))
        async with asyncio.timeout(60):
            while node.running < 2:  # noqa: ASYNC110 - the node's own counter has no event
                await asyncio.sleep(0.01)
        assert pool.busy() == {node.address}
        await pool.give_up(node.address)
        for call in (text, segment):
            with pytest.raises(NodeUnavailable):
                await call
        assert pool.busy() == set()
        assert pool.client(node.address) is not client
        await pool.close()


async def test_pool_keeps_one_client_per_address_and_closes_only_idle_strangers() -> None:
    busy, idle = FakeNode("busy", hold=asyncio.Event()), FakeNode("idle")
    async with serving_node(busy), serving_node(idle):
        pool = WorkerPool()
        assert pool.client(busy.address) is pool.client(busy.address)
        running = asyncio.create_task(
            collect(pool.client(busy.address).execute(LLM, "busy/tiny", LlmInput(prompt="x")))
        )
        old = pool.client(idle.address)
        async with asyncio.timeout(60):
            while not busy.running:  # noqa: ASYNC110 - the node's own counter has no event
                await asyncio.sleep(0.01)
        await pool.keep(())
        assert pool.client(idle.address) is not old
        assert busy.hold
        busy.hold.set()
        assert len(await running) == 4
        await pool.close()
