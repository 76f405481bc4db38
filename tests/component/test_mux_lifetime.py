"""The connections of the mux: server death, reconnection, drain and clean-up. Real gRPC."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest

from skyshore.domain.errors import NodeUnavailable
from skyshore.mux import client as mux_client
from skyshore.mux.client import MuxChannel
from skyshore.v1.scheduler_service_pb2 import (
    WatchDecisionsRequest,
    WatchDecisionsResponse,
)
from tests.fakes.echo_service import STREAM, EchoServicer, count, say, serving


@pytest.fixture
async def echo() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
async def channel(echo: EchoServicer) -> AsyncIterator[MuxChannel]:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        yield channel
        await channel.close()


async def test_server_death_fails_open_calls_and_a_new_server_is_found(echo: EchoServicer) -> None:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        open_call = asyncio.create_task(say(channel, "hang"))
        await echo.until_running(1)
    with pytest.raises(NodeUnavailable):
        await open_call
    with pytest.raises(NodeUnavailable):
        await say(channel, "anyone?")
    async with serving(EchoServicer(), server.address):

        async def answered() -> bool:
            try:
                return await say(channel, "back") == "back"
            except NodeUnavailable:
                return False

        for _ in range(1000):
            if await answered():
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the channel did not find the new server within 50 s")
    await channel.close()


async def test_nobody_there_is_node_unavailable_at_once() -> None:
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        await refuse(MuxChannel(f"127.0.0.1:{bound.getsockname()[1]}"))


async def refuse(channel: MuxChannel) -> None:
    with pytest.raises(NodeUnavailable):
        await asyncio.wait_for(say(channel, "anyone?", timeout_s=None), 60)
    await channel.close()


async def test_a_vanished_client_leaves_no_running_method(echo: EchoServicer) -> None:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        calls = [asyncio.create_task(say(channel, "hang")) for _ in range(20)]
        calls.append(asyncio.create_task(count_slowly(channel)))
        await echo.until_running(21)
        await channel.close()
        await echo.until_running(0)
        assert all(isinstance(end, NodeUnavailable) for end in await asyncio.gather(*calls, return_exceptions=True))


async def count_slowly(channel: MuxChannel) -> None:
    async for _ in channel.stream(STREAM, WatchDecisionsRequest(backlog=10**6), WatchDecisionsResponse, None):
        await asyncio.sleep(0.01)


async def test_drain_lets_running_calls_finish_refuses_new_ones_and_ends_the_stream(echo: EchoServicer) -> None:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        running = asyncio.create_task(say(channel, "gate"))
        await echo.until_running(1)
        drain = asyncio.create_task(server.drain(60.0))
        with pytest.raises(NodeUnavailable):
            while True:  # until the refusal is in force
                await say(channel, "late")
        echo.go.set()
        assert await running == "gate"
        await asyncio.wait_for(drain, 60)
        await channel.close()


async def test_drain_cancels_what_outlasts_the_grace(echo: EchoServicer) -> None:
    async with serving(echo) as server:
        channel = MuxChannel(server.address)
        running = asyncio.create_task(say(channel, "hang"))
        await echo.until_running(1)
        await asyncio.wait_for(server.drain(0.1), 60)
        with pytest.raises(NodeUnavailable):
            await running
        await echo.until_running(0)
        await channel.close()


async def test_nothing_is_kept_of_ended_calls(channel: MuxChannel) -> None:
    for _ in range(50):
        await say(channel, "x")
        await count(channel, 3)
    gc.collect()
    # By type, not isinstance, which would wake lazy attributes of every object of every library.
    assert not [o for o in gc.get_objects() if type(o) is mux_client._OpenCall]
