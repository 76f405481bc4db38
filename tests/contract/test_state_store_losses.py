"""What every StateStore promises of jobs and registries that it lost, on the fake and on a real Valkey."""

from dataclasses import replace

import pytest

from skyshore.domain.errors import StoreUnavailable
from skyshore.domain.job import JobRank, TaskState
from tests.contract.test_state_store import RECORD, accept, claim, store, until
from tests.fakes.memory_store import MemoryStore
from tests.fakes.small_fleet import node, status

__all__ = ["store"]  # a fixture


async def test_a_lost_job_is_restored_and_an_ended_one_is_not(store):
    rank = JobRank("somebody", 3, 5.0, 7.0)
    assert await store.open_jobs() == set()
    await accept(store, body=b"body")
    assert await store.open_jobs() == {"job-1"}
    (job,) = await claim(store, "w1")
    assert await store.open_jobs() == {"job-1"}, "also while it runs"
    assert await store.end_job("w1", job, RECORD)  # its record says that it is open: as if the entry were lost
    assert await store.open_jobs() == set()
    assert await store.restore_job(RECORD, b"body", rank)
    _, (waiting,) = await store.waiting_jobs(30.0)
    assert waiting.rank == rank
    (again,) = await claim(store, "w1")
    assert (again.task_id, again.body, again.deliveries) == ("job-1", b"body", 1)
    for state in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED):
        await store.put_task(replace(RECORD, task_id="ended", state=state))
        assert not await store.restore_job(replace(RECORD, task_id="ended"), b"body", rank)
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


async def test_the_fake_can_be_out_of_reach():
    store = MemoryStore(reachable=False)
    with pytest.raises(StoreUnavailable):
        await store.nodes()
