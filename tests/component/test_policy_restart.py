"""What a policy learned outlives the scheduler, and a policy put in force again goes on from what it knew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.scheduler.app import scheduler
from services.scheduler.settings import SchedulerSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.scheduler_client import MuxSchedulerClient
from skyshore.domain.errors import QueueFull
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.mux.client import MuxChannel
from tests.fakes.small_fleet import LLM_PROFILE, llm_arm, llm_task, node, outcome, status

POLICY = "skyshore"


@asynccontextmanager
async def running(valkey_url: str) -> AsyncIterator[tuple[MuxSchedulerClient, RedisStore]]:
    store = RedisStore(valkey_url)
    settings = SchedulerSettings(scheduler_listen="127.0.0.1:0", redis_url=valkey_url, scheduler_policy=POLICY)
    async with scheduler(settings, store) as server:
        channel = MuxChannel(server.address)
        yield MuxSchedulerClient(channel), store
        await channel.close()
    await store.close()


async def teach(client: MuxSchedulerClient, store: RedisStore, rounds: int) -> None:
    """Node `liar` states few joules and burns many."""
    for number in range(rounds):
        placement = await client.place(llm_task(f"t{number}", deadline_s=60.0), LLM_PROFILE)
        burnt = 500.0 if placement.arm.node_id == "liar" else 20.0
        worker = WorkerOutcome(compute_s=0.5, inference_joules=burnt)
        await store.append_outcomes([answer(placement, worker)])
        await asyncio.sleep(0.01)


def answer(placement: Placement, worker: WorkerOutcome) -> object:
    return outcome(placement.task_id, placement.arm.arm_id, placement.arm.node_id, latency_s=0.6, worker=worker)


async def room(client: MuxSchedulerClient, task_id: str) -> bool:
    try:
        await client.place(llm_task(task_id, deadline_s=60.0), LLM_PROFILE)
    except QueueFull:
        return False
    return True


async def first_choices(client: MuxSchedulerClient, word: str, count: int) -> list[str]:
    tasks = [llm_task(f"{word}{number}", deadline_s=60.0) for number in range(count)]
    return [(await client.place(task, LLM_PROFILE)).arm.node_id for task in tasks]


async def test_a_restarted_scheduler_knows_what_the_one_before_it_learned(valkey_url: str) -> None:
    store = RedisStore(valkey_url)
    for name, watts in (("liar", 5.0), ("honest", 40.0)):
        await store.register_node(
            node(name, llm_arm(name, busy_watts=watts)), status(name, capacity=1000), lease_s=60.0
        )
    async with running(valkey_url) as (client, shared):
        assert await first_choices(client, "before", 1) == ["liar"]
        await teach(client, shared, 60)
    async with running(valkey_url) as (client, _):
        assert await first_choices(client, "after", 3) == ["honest"] * 3
    await store.close()


@pytest.mark.parametrize("other", ["least_loaded", "cs_ucb"])
async def test_tasks_placed_under_one_policy_end_under_another(valkey_url: str, other: str) -> None:
    """Switched while forty tasks are under way: all forty end, and the first policy has not forgotten."""
    store = RedisStore(valkey_url)
    for name, watts in (("liar", 5.0), ("honest", 40.0)):
        await store.register_node(node(name, llm_arm(name, busy_watts=watts)), status(name, capacity=25), lease_s=60.0)
    async with running(valkey_url) as (client, shared):
        await teach(client, shared, 60)
        tasks = [llm_task(f"open{number}", deadline_s=60.0) for number in range(40)]
        placed = [await client.place(task, LLM_PROFILE) for task in tasks]
        await client.set_policy(other)
        during = await first_choices(client, "during", 10)
        assert len(during) == 10
        assert not await room(client, "too many")
        worker = WorkerOutcome(compute_s=0.5, inference_joules=20.0)
        await shared.append_outcomes([answer(placement, worker) for placement in placed])  # type: ignore[misc]
        await client.set_policy(POLICY)
        async with asyncio.timeout(60.0):
            while not await room(client, "again"):  # noqa: ASYNC110 - the forty give their room back unannounced
                await asyncio.sleep(0.01)
        assert await first_choices(client, "later", 3) == ["honest"] * 3
    await store.close()
