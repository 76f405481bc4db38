"""A task that talks to the store can be stopped at any moment."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from skyshore.adapters.redis_store import RedisStore

TRIES = 150
"""Without the store's own care about one in ten goes unheard."""


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(valkey_url)
    await store.ping()
    yield store
    await store.close()


@pytest.mark.parametrize(
    "ask",
    [lambda store: store.ping(), lambda store: store.nodes(), lambda store: store.read_outcomes("0", 10, 0.05)],
    ids=["ping", "nodes", "outcomes"],
)
async def test_a_cancellation_is_never_lost(store: RedisStore, ask: Callable[[RedisStore], Awaitable[object]]) -> None:
    rng = random.Random(7)

    async def ask_forever() -> None:
        while True:
            await ask(store)

    for _ in range(TRIES):
        asking = asyncio.create_task(ask_forever())
        await asyncio.sleep(rng.random() * 0.004)
        asking.cancel()
        done, _pending = await asyncio.wait([asking], timeout=60)
        assert done, "the task goes on as if nothing had been asked"
        assert asking.cancelled()


async def test_the_store_can_be_used_while_a_task_is_being_stopped(store: RedisStore) -> None:
    said_farewell = asyncio.Event()

    async def leave_properly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await store.ping()
            said_farewell.set()

    leaving = asyncio.create_task(leave_properly())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert said_farewell.is_set()
