"""The scheduler process over real gRPC and a real Valkey."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from services.scheduler.app import scheduler
from services.scheduler.settings import SchedulerSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.scheduler_client import MuxSchedulerClient
from skyshore.domain.errors import NodeUnavailable, NoFeasibleArm, NotFound, QueueFull
from skyshore.domain.node import Link, Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.mux.client import MuxChannel
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.log import replay
from skyshore.v1 import scheduler_service_pb2 as pb
from skyshore.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from skyshore.wire.pairs import OUTCOME, PROFILE, TASK
from tests.fakes.memory_store import MemoryStore
from tests.fakes.small_fleet import LLM_PROFILE, llm_task, node, outcome, status


class Live(NamedTuple):
    client: MuxSchedulerClient
    store: RedisStore
    address: str


@asynccontextmanager
async def live(valkey_url: str, **settings: object) -> AsyncIterator[Live]:
    store = RedisStore(valkey_url)
    chosen = SchedulerSettings(scheduler_listen="127.0.0.1:0", redis_url=valkey_url, **settings)  # type: ignore[arg-type]
    async with scheduler(chosen, store) as server:
        channel = MuxChannel(server.address)
        yield Live(MuxSchedulerClient(channel), store, server.address)
        await channel.close()
    await store.close()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - the other side gives no event to wait on
            await asyncio.sleep(0.01)


async def placed(client: MuxSchedulerClient, task_id: str) -> bool:
    try:
        await client.place(llm_task(task_id), LLM_PROFILE)
    except (NodeUnavailable, QueueFull):
        return False
    return True


async def test_nodes_known_before_the_start_take_tasks_at_once(valkey_url):
    before = RedisStore(valkey_url)
    await before.register_node(node("a"), status("a"), lease_s=3.0)
    await before.close()
    async with live(valkey_url) as live_:
        placement = await live_.client.place(llm_task("t1"), LLM_PROFILE)
        assert (placement.arm.node_id, placement.policy, placement.attempt) == ("a", "least_loaded", 1)
        assert placement.address == node("a").address
        with pytest.raises(NoFeasibleArm):
            await live_.client.place(llm_task("t2", model="none"), LLM_PROFILE)


async def test_a_node_that_falls_silent_is_dropped_within_three_and_a_half_seconds(valkey_url):
    loop = asyncio.get_running_loop()
    async with live(valkey_url) as live_:
        with pytest.raises(NodeUnavailable):
            await live_.client.place(llm_task("t0"), LLM_PROFILE)
        await live_.store.register_node(node("a"), status("a", capacity=100_000), lease_s=3.0)
        last_heartbeat_s = loop.time()
        late_s = 0.0
        await until(lambda: placed(live_.client, "t1"))
        tries = iter(range(100_000))

        async def dropped() -> bool:
            nonlocal late_s
            asked_s = loop.time()
            gone = not await placed(live_.client, f"more-{next(tries)}")
            late_s = max(late_s, loop.time() - asked_s)
            return gone

        await until(dropped)
        # What the machine takes over a single question, it may take over each of the steps to the answer.
        assert 2.9 <= loop.time() - last_heartbeat_s <= 3.6 + 10 * late_s


async def test_outcomes_of_the_stream_give_room_back(valkey_url):
    async with live(valkey_url) as live_:
        await live_.store.register_node(node("a"), status("a", capacity=1), lease_s=30.0)
        await until(lambda: placed(live_.client, "t1"))
        with pytest.raises(QueueFull) as full:
            await live_.client.place(llm_task("t2"), LLM_PROFILE)
        assert full.value.retry_after_s >= 0.5
        await live_.store.append_outcomes([outcome("t1", "a/smollm2", "a")])
        await until(lambda: placed(live_.client, "t2"))


async def test_a_caller_outside_may_report_an_outcome(valkey_url):
    async with live(valkey_url) as live_, grpc.aio.insecure_channel(live_.address) as channel:
        stub = SchedulerServiceStub(channel)
        await live_.store.register_node(node("a"), status("a", capacity=1), lease_s=30.0)
        await until(lambda: placed(live_.client, "t1"))
        report = outcome("t1", "a/smollm2", "a", status=OutcomeStatus.FAILED)
        await stub.ReportOutcome(pb.ReportOutcomeRequest(outcome=OUTCOME.to_proto(report)))
        await until(lambda: placed(live_.client, "t2"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ReportOutcome(pb.ReportOutcomeRequest())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Place(pb.PlaceRequest())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_outcome_reported_while_the_store_is_away_gives_room_back_and_counts_once():
    store = MemoryStore()
    await store.register_node(node("a"), status("a", capacity=1), lease_s=3600.0)
    async with scheduler(SchedulerSettings(scheduler_listen="127.0.0.1:0"), store) as server:
        channel = MuxChannel(server.address)
        client = MuxSchedulerClient(channel)
        ended = outcome("t1", "a/smollm2", "a")
        assert await placed(client, "t1")
        store.reachable = False
        assert not await placed(client, "t2")
        await client.report_outcome(ended)
        assert await placed(client, "t2")
        store.reachable = True
        # The gateway writes it once more when the store is back; the room of t2 is not given away by that.
        await store.append_outcomes([ended, outcome("t2", "a/smollm2", "a")])
        await until(lambda: placed(client, "t3"))
        assert not await placed(client, "t4")
        await channel.close()


async def test_decisions_are_watched_and_kept(valkey_url):
    async with live(valkey_url) as live_, grpc.aio.insecure_channel(live_.address) as channel:
        await live_.store.register_node(node("a"), status("a"), lease_s=30.0)
        await until(lambda: placed(live_.client, "t1"))
        watch = SchedulerServiceStub(channel).WatchDecisions(pb.WatchDecisionsRequest(backlog=1))
        assert (await watch.read()).decision.task_id == "t1"
        await live_.client.place(llm_task("t2"), LLM_PROFILE)
        latest = (await watch.read()).decision
        assert (latest.task_id, latest.chosen, latest.policy) == ("t2", "a/smollm2", "least_loaded")
        watch.cancel()

        async def kept() -> bool:
            return [record.task_id for record in await live_.store.decisions(2)] == ["t2", "t1"]

        await until(kept)


async def test_the_policy_changes_by_call_and_tasks_go_on(valkey_url):
    async with live(valkey_url) as live_:
        await live_.store.register_node(node("edge"), status("edge", capacity=1), lease_s=30.0)
        await live_.store.register_node(node("sky", tier=Tier.CLOUD), status("sky", capacity=1), lease_s=30.0)
        await until(lambda: placed(live_.client, "t1"))
        name, available = await live_.client.policy()
        assert name == "least_loaded"
        assert {"random", "round_robin", "edge_only", "cloud_only", "least_loaded"} <= set(available)
        await live_.client.set_policy("cloud_only")
        assert (await live_.client.policy())[0] == "cloud_only"
        with pytest.raises(NotFound, match="known are"):
            await live_.client.set_policy("nonsense")
        assert (await live_.client.policy())[0] == "cloud_only"


async def test_the_fleet_stays_while_the_store_is_away(monkeypatch):
    now_s = [100.0]
    store = MemoryStore(now_s=lambda: now_s[0])
    reads, nodes = 0, store.nodes

    async def counted() -> object:
        nonlocal reads
        try:
            return await nodes()
        finally:
            reads += 1

    async def more_reads(count: int) -> None:
        wanted = reads + count

        async def enough() -> bool:
            return reads >= wanted

        await until(enough)

    monkeypatch.setattr(store, "nodes", counted)
    await store.register_node(node("a"), status("a", capacity=1000), lease_s=1.0)
    async with scheduler(SchedulerSettings(scheduler_listen="127.0.0.1:0"), store) as server:
        channel = MuxChannel(server.address)
        client = MuxSchedulerClient(channel)
        assert await placed(client, "t1")
        store.reachable = False
        now_s[0] += 1.5  # longer than the lease: it ran out because nobody could renew it
        await more_reads(1)
        assert await placed(client, "t2")
        store.reachable = True
        await more_reads(2)  # they find no node, within the lease after the outage
        assert await placed(client, "t3")
        await store.register_node(node("a"), status("a", capacity=1000), lease_s=30.0)
        await more_reads(2)
        assert await placed(client, "t4")
        await channel.close()


async def test_the_event_log_of_a_live_run_replays_to_the_same_decisions(valkey_url, tmp_path: Path):
    event_log = tmp_path / "events.jsonl"
    answers = []
    async with live(valkey_url, scheduler_policy="random", scheduler_seed=7, scheduler_event_log=event_log) as live_:
        for name in "abc":
            await live_.store.register_node(node(name), status(name, capacity=40), lease_s=30.0)
        await until(lambda: placed(live_.client, "first"))

        async def one(number: int) -> None:
            placement = await live_.client.place(llm_task(f"t{number}"), LLM_PROFILE)
            arm = placement.arm
            answers.append((placement.task_id, arm.arm_id))
            await live_.store.append_outcomes([outcome(placement.task_id, arm.arm_id, arm.node_id)])

        await asyncio.gather(*(one(number) for number in range(30)))
        await live_.client.set_policy("least_loaded")
        await asyncio.gather(*(one(number) for number in range(30, 60)))
    lines = event_log.read_text().splitlines()
    assert json.loads(lines[0])["settings"]["policy"] == "random"
    again = [(d.placement.task_id, d.placement.arm.arm_id) for d in replay(lines)]
    assert sorted(again[1:]) == sorted(answers)


async def test_a_link_measured_live_decides_and_the_log_replays_it(valkey_url, tmp_path: Path):
    log = tmp_path / "events.jsonl"
    chosen = []
    async with live(valkey_url, scheduler_event_log=log, scheduler_policy="shortest_delay") as live_:
        for name in ("near", "far"):
            await live_.store.register_node(node(name), status(name), lease_s=30.0)
        await live_.store.report_links({"near": Link(0, 0, 0.001), "far": Link(0, 0, 30.0)}, lease_s=30.0)
        await until(lambda: _logged(log, "LinkChanged", 2))
        chosen.append((await live_.client.place(llm_task("t1"), LLM_PROFILE)).arm.arm_id)
        await live_.store.report_links({"near": Link(0, 0, 60.0), "far": Link(0, 0, 0.001)}, lease_s=30.0)
        await until(lambda: _logged(log, "LinkChanged", 4))
        chosen += [(await live_.client.place(llm_task(t), LLM_PROFILE)).arm.arm_id for t in ("t2", "t3")]
    assert [arm.split("/")[0] for arm in chosen] == ["near", "far", "far"]
    again = [dispatch.placement.arm.arm_id for dispatch in replay(log.read_text().splitlines())]
    assert again == chosen


async def _logged(log: Path, word: str, times: int) -> bool:
    text = await asyncio.to_thread(log.read_text)
    return text.count(f'"{word}"') >= times


async def test_two_thousand_placements_leave_nothing_behind(valkey_url):
    """A burst far above the fleet's speed: all answered, room given back, decisions kept."""
    async with live(valkey_url) as live_:
        for name in "abc":
            await live_.store.register_node(node(name), status(name, capacity=1000), lease_s=30.0)
        await until(lambda: placed(live_.client, "first"))

        async def one(number: int) -> None:
            placement = await live_.client.place(llm_task(f"t{number}"), LLM_PROFILE)
            arm = placement.arm
            await live_.store.append_outcomes([outcome(placement.task_id, arm.arm_id, arm.node_id)])

        for start in range(0, 2000, 100):
            await asyncio.gather(*(one(number) for number in range(start, start + 100)))

        async def kept() -> bool:
            chosen = [record.chosen for record in await live_.store.decisions(5000) if record.chosen]
            return len(chosen) == 2001

        await until(kept)


async def test_plain_unary_callers_see_the_status_of_the_table(valkey_url):
    async with live(valkey_url) as live_, grpc.aio.insecure_channel(live_.address) as channel:
        request = pb.PlaceRequest(task=TASK.to_proto(llm_task("t")), profile=PROFILE.to_proto(LLM_PROFILE))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await SchedulerServiceStub(channel).Place(request)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.timeout(600)
async def test_a_large_fleet_is_decided_on_by_machine_code_and_nothing_waits_for_it(valkey_url, monkeypatch):
    pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")
    monkeypatch.setattr("services.scheduler.machine_code.MANY_ARMS", 2)
    monkeypatch.setattr(SchedulerCore.use_compiled, "__defaults__", (2,))
    compiled = asyncio.Event()
    monkeypatch.setattr(
        "services.scheduler.machine_code.log.info",
        lambda event, **_: compiled.set() if "machine code" in event else None,
    )
    async with live(valkey_url) as (client, store, _):
        for name in ("a", "b"):
            await store.register_node(node(name), status(name, capacity=64), lease_s=3600.0)
        await until(lambda: placed(client, "before"))
        async with asyncio.timeout(500.0):
            await compiled.wait()
        assert await placed(client, "after")
