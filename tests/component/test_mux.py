"""Calls over the mux: order, batching, errors, deadlines, cancellation and flow control. Real gRPC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from skyshore.domain.errors import DeadlineExceeded, Internal, InvalidTask, QueueFull
from skyshore.mux import client as mux_client
from skyshore.mux.client import STREAM_WINDOW, MuxChannel
from skyshore.mux.server import MAX_CALLS
from skyshore.v1 import mux_service_pb2, mux_service_pb2_grpc
from skyshore.v1.outcome_pb2 import DecisionRecord
from skyshore.v1.scheduler_service_pb2 import (
    SetPolicyRequest,
    SetPolicyResponse,
    WatchDecisionsRequest,
    WatchDecisionsResponse,
)
from tests.fakes.echo_service import STREAM, UNARY, EchoServicer, count, say, serving


@pytest.fixture
async def echo() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
async def channel(echo: EchoServicer) -> AsyncIterator[MuxChannel]:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        yield channel
        await channel.close()


async def test_hundreds_of_interleaved_calls_each_get_their_own_answer_in_order(channel: MuxChannel) -> None:
    rng = random.Random(7)

    async def unary(number: int) -> None:
        word = f"sleep:{rng.random() / 20:.4f}" if number % 3 else f"word-{number}"
        assert await say(channel, word) == word

    async def streaming(number: int) -> None:
        assert await count(channel, number) == list(range(number))

    async with asyncio.TaskGroup() as group:
        for number in range(400):
            group.create_task(unary(number))
        for number in range(0, 300, 7):
            group.create_task(streaming(number))


@pytest.fixture
def sent_frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of each message the client sends."""
    sizes: list[int] = []

    def spy(**fields: Any) -> mux_service_pb2.ConnectRequest:
        sizes.append(len(fields["frames"]))
        return mux_service_pb2.ConnectRequest(**fields)

    class Spied:
        ConnectRequest = staticmethod(spy)

        def __getattr__(self, name: str) -> Any:
            return getattr(mux_service_pb2, name)

    monkeypatch.setattr(mux_client, "mux_service_pb2", Spied())
    return sizes


async def test_calls_of_one_turn_share_few_messages(channel: MuxChannel, sent_frames: list[int]) -> None:
    await asyncio.gather(*(say(channel, f"w{n}") for n in range(50)))
    assert sent_frames == [16, 16, 16, 2]


async def loop_iterations() -> None:
    """Enough iterations of the event loop for new tasks to start and for the sender to wake up."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_frames_gather_while_a_message_is_unanswered(
    channel: MuxChannel, echo: EchoServicer, sent_frames: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux_client, "LINGER_S", 3600.0)
    gated = asyncio.create_task(say(channel, "gate"))
    await echo.until_running(1)
    later = [asyncio.create_task(say(channel, "one"))]
    await loop_iterations()
    later.append(asyncio.create_task(say(channel, "two")))
    await loop_iterations()
    assert sent_frames == [1]
    echo.go.set()
    assert await asyncio.gather(gated, *later) == ["gate", "one", "two"]
    assert sent_frames == [1, 2]


async def test_a_silent_server_delays_frames_for_a_moment_only(channel: MuxChannel, echo: EchoServicer) -> None:
    gated = asyncio.create_task(say(channel, "gate"))
    await echo.until_running(1)
    assert await say(channel, "one") == "one"
    assert not gated.done()
    echo.go.set()
    await gated


async def test_domain_error_crosses_whole(channel: MuxChannel) -> None:
    with pytest.raises(QueueFull) as caught:
        await say(channel, "full")
    assert (caught.value.message, caught.value.param, caught.value.retry_after_s) == ("no room", "queue", 2.5)


async def test_a_bug_is_internal_and_keeps_its_detail_to_the_servers_log(channel: MuxChannel) -> None:
    with pytest.raises(Internal) as caught:
        await say(channel, "bug")
    assert "secret" not in caught.value.message
    assert await say(channel, "still here") == "still here"


async def test_abort_and_a_method_that_cancels_itself_end_the_call(channel: MuxChannel) -> None:
    with pytest.raises(InvalidTask, match="aborted"):
        await say(channel, "abort")
    with pytest.raises(Internal, match="cancelled itself"):
        await say(channel, "cancel-self")


async def test_unknown_and_client_streaming_methods_are_refused(channel: MuxChannel) -> None:
    for method in ("/skyshore.v1.SchedulerService/Nothing", "/skyshore.v1.MuxService/Connect"):
        with pytest.raises(Internal, match=r"no unary or server-streaming method"):
            await channel.unary(method, SetPolicyRequest(), SetPolicyResponse, 5.0)


async def test_error_after_replies_comes_after_them(channel: MuxChannel) -> None:
    got = []
    with pytest.raises(InvalidTask, match="thirteen"):
        async for reply in channel.stream(STREAM, WatchDecisionsRequest(backlog=13), WatchDecisionsResponse, 5.0):
            got.append(int(reply.decision.task_id))
    assert got == list(range(13))


async def test_deadline_fails_the_caller_and_cancels_the_method(channel: MuxChannel, echo: EchoServicer) -> None:
    await say(channel, "connected")
    with pytest.raises(DeadlineExceeded):
        await say(channel, "hang", timeout_s=0.5)
    await echo.until_running(0)
    assert echo.remaining_s is not None
    assert 0 < echo.remaining_s <= 0.5


async def test_server_enforces_the_deadline_of_a_silent_caller(echo: EchoServicer) -> None:
    async with serving(echo) as server, grpc.aio.insecure_channel(server.address) as plain:
        stream = mux_service_pb2_grpc.MuxServiceStub(plain).Connect()
        start = mux_service_pb2.CallStart(
            method=UNARY, request=SetPolicyRequest(policy="hang").SerializeToString(), timeout_ms=50
        )
        frame = mux_service_pb2.CallFrame(call_id=1, start=start)
        await stream.write(mux_service_pb2.ConnectRequest(frames=[frame]))
        reply = await asyncio.wait_for(stream.read(), 30)
        assert reply.frames[0].status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await echo.until_running(0)
        stream.cancel()


async def test_cancelling_the_awaiting_task_cancels_the_method(channel: MuxChannel, echo: EchoServicer) -> None:
    task = asyncio.create_task(say(channel, "hang"))
    await echo.until_running(1)
    task.cancel()
    await echo.until_running(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_the_iterator_early_cancels_the_method(channel: MuxChannel, echo: EchoServicer) -> None:
    request = WatchDecisionsRequest(backlog=1_000_000)
    async with aclosing(channel.stream(STREAM, request, WatchDecisionsResponse, None)) as stream:
        async for _ in stream:
            break
    await echo.until_running(0)
    assert echo.produced < 1000


async def test_slow_consumer_pauses_only_its_own_call(channel: MuxChannel, echo: EchoServicer) -> None:
    stream = channel.stream(STREAM, WatchDecisionsRequest(backlog=100_000), WatchDecisionsResponse, None)
    async with aclosing(stream):
        assert (await anext(stream)).decision.task_id == "0"
        for number in range(100):
            assert await say(channel, f"w{number}") == f"w{number}"
        # One more than the window may have been made: it waits in the server for credit.
        assert echo.produced <= STREAM_WINDOW + 1
        for expected in range(1, 500):
            assert int((await anext(stream)).decision.task_id) == expected
        assert echo.produced <= 500 + STREAM_WINDOW + 1


async def test_server_never_sends_beyond_the_credit_given(echo: EchoServicer) -> None:
    async with serving(echo) as server, grpc.aio.insecure_channel(server.address) as plain:
        stream = mux_service_pb2_grpc.MuxServiceStub(plain).Connect()
        got = 0

        async def read_until(total: int) -> None:
            nonlocal got
            while got < total:
                got += sum(frame.WhichOneof("event") == "reply" for frame in (await stream.read()).frames)

        payload = WatchDecisionsRequest(backlog=50).SerializeToString()
        start = mux_service_pb2.CallStart(method=STREAM, request=payload, credit=3)
        await stream.write(mux_service_pb2.ConnectRequest(frames=[mux_service_pb2.CallFrame(call_id=9, start=start)]))
        for given, more in ((3, 4), (7, 10), (17, 0)):
            await asyncio.wait_for(read_until(given), 30)
            assert got == given
            async with asyncio.timeout(30):
                while echo.produced < given + 1:  # noqa: ASYNC110 - one more is made, and waits for credit
                    await asyncio.sleep(0.001)
            assert echo.produced == given + 1
            if more:
                grant = mux_service_pb2.CallFrame(call_id=9, credit=more)
                await stream.write(mux_service_pb2.ConnectRequest(frames=[grant]))
        stream.cancel()


async def test_server_that_overruns_the_credit_fails_the_call() -> None:
    class Flooding(mux_service_pb2_grpc.MuxServiceServicer):
        async def Connect(  # noqa: N802
            self, request_iterator: Any, context: Any
        ) -> AsyncIterator[mux_service_pb2.ConnectResponse]:
            async for _ in request_iterator:
                reply = WatchDecisionsResponse(decision=DecisionRecord(task_id="0")).SerializeToString()
                frames = [mux_service_pb2.ReplyFrame(call_id=1, reply=reply)] * (STREAM_WINDOW + 1)
                yield mux_service_pb2.ConnectResponse(frames=frames)

    server = grpc.aio.server()
    mux_service_pb2_grpc.add_MuxServiceServicer_to_server(Flooding(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = MuxChannel(f"127.0.0.1:{port}")
    try:
        with pytest.raises(Internal, match="credit"):
            await count(channel, 1)
    finally:
        await channel.close()
        await server.stop(0)


async def test_calls_beyond_the_limit_are_refused_and_room_comes_back(channel: MuxChannel, echo: EchoServicer) -> None:
    hanging = [asyncio.create_task(say(channel, "gate")) for _ in range(MAX_CALLS)]
    await echo.until_running(MAX_CALLS)
    with pytest.raises(QueueFull) as caught:
        await say(channel, "one too many")
    assert caught.value.retry_after_s
    echo.go.set()
    assert set(await asyncio.gather(*hanging)) == {"gate"}
    assert await say(channel, "now") == "now"
