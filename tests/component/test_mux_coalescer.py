"""The mux's send queue: order, sizes, memory."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from skyshore.mux.coalescer import Coalescer
from skyshore.v1.mux_service_pb2 import CallFrame, CallStart


def frame(number: int, size: int) -> CallFrame:
    return CallFrame(call_id=number, start=CallStart(request=bytes(size)))


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 500), st.integers(1, 10))
def test_frames_keep_their_order_in_bounded_batches(sizes: list[int], max_bytes: int, max_frames: int) -> None:
    async def run() -> None:
        queue: Coalescer[CallFrame] = Coalescer(max_bytes, max_batch_frames=max_frames)
        frames = [frame(number, size) for number, size in enumerate(sizes)]
        for each in frames:
            queue.put(each)
        queue.close()
        batches = []
        while batch := await queue.take():
            batches.append(batch)
        assert [each for batch in batches for each in batch] == frames
        for batch in batches:
            assert len(batch) <= max_frames
            assert len(batch) == 1 or sum(each.ByteSize() for each in batch) <= max_bytes
        for batch, following in pairwise(batches):  # no batch is smaller than it need be
            one_more = [*batch, following[0]]
            assert len(batch) == max_frames or sum(each.ByteSize() for each in one_more) > max_bytes

    asyncio.run(run())


async def test_all_of_one_turn_travels_together() -> None:
    queue: Coalescer[CallFrame] = Coalescer()
    reader = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    for number in range(5):
        queue.put(frame(number, 1))
    assert len(await reader) == 5


async def test_senders_wait_above_the_high_water_mark() -> None:
    queue: Coalescer[CallFrame] = Coalescer(max_batch_bytes=100, high_water_bytes=250)
    for number in range(3):
        queue.put(frame(number, 90))
    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.take()
    await asyncio.wait_for(waiting, 30)
    assert queue.queued_bytes <= 250


async def test_closing_wakes_everybody_and_drops_what_comes_later() -> None:
    queue: Coalescer[CallFrame] = Coalescer(max_batch_bytes=10, high_water_bytes=10)
    queue.put(frame(1, 100))
    blocked = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    queue.close()
    await asyncio.wait_for(blocked, 30)
    queue.put(frame(2, 1))
    assert [each.call_id for each in await queue.take()] == [1]
    assert await queue.take() == []
    assert await queue.take() == []
