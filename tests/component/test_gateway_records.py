"""Batched records: nothing lost while the store is away, nothing unbounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import REGISTRY

from gateway import records
from gateway.records import RecordWriter
from skyshore.domain.errors import NodeUnavailable
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.outcome import Outcome, OutcomeStatus
from tests.fakes.memory_store import MemoryStore


class CountingStore(MemoryStore):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.batches: list[int] = []
        self.refused = 0
        """Batches that came while the store was away."""
        self.reported: list[str] = []
        """Outcomes that went directly to the scheduler."""

    async def report(self, outcome: Outcome) -> None:
        self.reported.append(outcome.task_id)
        if len(self.reported) % 3 == 0:
            raise NodeUnavailable("the scheduler is away for a moment")

    async def append_outcomes(self, outcomes: object) -> None:
        self.refused += not self.reachable
        await super().append_outcomes(outcomes)  # type: ignore[arg-type]
        self.batches.append(len(outcomes))  # type: ignore[arg-type]


def outcome(number: int) -> Outcome:
    return Outcome(f"t{number}", "a", "n", OutcomeStatus.OK, 0.0, 0.1, 1.0)


def dropped(kind: str) -> float:
    return REGISTRY.get_sample_value("skyshore_records_dropped_total", {"kind": kind}) or 0.0


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
async def writer(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RecordWriter]:
    monkeypatch.setattr("skyshore.runtime.endure.LONGEST_WAIT_S", 0.01)
    writer = RecordWriter(store, store.report)
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()
    await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.005)


async def test_a_burst_is_written_in_few_round_trips_and_in_order(store: CountingStore, writer: RecordWriter) -> None:
    for number in range(1000):
        writer.outcome(outcome(number))
    await until(lambda: len(store._outcomes) == 1000)
    assert [o.task_id for o in store._outcomes] == [f"t{n}" for n in range(1000)]
    assert len(store.batches) == 2


async def test_what_came_while_the_store_was_away_is_written_afterwards(
    store: CountingStore, writer: RecordWriter
) -> None:
    store.reachable = False
    for number in range(10):
        writer.outcome(outcome(number))
        await until(lambda: store.refused > number)  # noqa: B023 - called before the next number
    store.reachable = True
    await until(lambda: len(store._outcomes) == 10)
    assert [o.task_id for o in store._outcomes] == [f"t{n}" for n in range(10)]


async def test_outcomes_go_directly_to_the_scheduler_while_the_store_is_away(
    store: CountingStore, writer: RecordWriter
) -> None:
    store.reachable = False
    for number in range(7):
        writer.outcome(outcome(number))
        await until(lambda: store.refused > number)  # noqa: B023 - called before the next number
    await until(lambda: len(store.reported) == 7)
    assert store.reported == [f"t{n}" for n in range(7)]
    store.reachable = True
    await until(lambda: len(store._outcomes) == 7)
    assert [o.task_id for o in store._outcomes] == [f"t{n}" for n in range(7)]


async def test_the_queue_is_bounded_and_what_falls_out_is_counted(
    store: CountingStore, writer: RecordWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "QUEUE_LIMIT", 50)
    store.reachable = False
    before = dropped("outcome")
    for number in range(80):
        writer.outcome(outcome(number))
    assert dropped("outcome") == before + 30
    store.reachable = True
    await until(lambda: len(store._outcomes) == 50)
    assert store._outcomes[0].task_id == "t30"


async def test_closing_writes_what_is_left_or_counts_it(store: CountingStore) -> None:
    writer = RecordWriter(store, store.report)
    writer.outcome(outcome(1))
    writer.task(TaskRecord("t1", "llm", TaskState.DONE, 0.0, 0.0))
    await writer.close()
    assert len(store._outcomes) == 1
    assert await store.task("t1")
    before = dropped("task")
    writer.task(TaskRecord("t2", "llm", TaskState.DONE, 0.0, 0.0))
    store.reachable = False
    await writer.close()
    assert dropped("task") == before + 1
