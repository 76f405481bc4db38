"""Every kind of task is placed, tried again and recorded by the same rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from gateway import attempts as attempts_module
from gateway import tried as tried_module
from gateway.attempts import RETRY_LIMITS, AttemptLoop
from gateway.breaker import FAILURES, BreakerState, NodeBreakers
from gateway.llm.run import LlmPrompt, LlmRun
from gateway.records import RecordWriter
from gateway.retry_budget import RetryBudget
from gateway.video.segment_run import SegmentRun, SegmentTask
from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NoAnswer,
    NodeDied,
    NodeUnavailable,
    NoFeasibleArm,
    QueueFull,
)
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import Arm, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, EncodedFrame, FrameDetections, LabelScore, SegmentInfo
from tests.fakes.memory_store import MemoryStore

KINDS = list(TaskKind)
FRAME = EncodedFrame(0, 0.0, b"jpeg")


@dataclass
class FakeFleet:
    """Nodes `a`, `b`, ... in this order; each call on a node runs the next of `calls`, or succeeds if none is left."""

    kind: TaskKind
    calls: list[Callable[[], Any]] = field(default_factory=list)
    node_ids: Sequence[str] = "abcdefgh"
    deadlines_s: list[float] = field(default_factory=list)
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(attempt, nodes to avoid) of every placement asked for."""
    profiler_errors: list[Exception] = field(default_factory=list)
    scheduler_errors: list[Exception] = field(default_factory=list)
    """Raised one after the other, before the service answers."""
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        async def report(_: Outcome) -> None:
            return

        self.records = RecordWriter(self.store, report)

    async def profile_segment(self) -> TaskProfile:
        return await self.profile_llm(Task("t", self.kind), LlmInput())

    async def profile_llm(self, task: Task, request: LlmInput) -> TaskProfile:
        if self.profiler_errors:
            raise self.profiler_errors.pop(0)
        return TaskProfile(prompt_tokens=3, input_bytes=10)

    async def place(
        self, task: Task, profile: TaskProfile, *, attempt: int = 1, avoid: Sequence[str] = ()
    ) -> Placement:
        self.asked.append((attempt, tuple(avoid)))
        if self.scheduler_errors:
            raise self.scheduler_errors.pop(0)
        for node_id in self.node_ids:
            if node_id not in avoid:
                arm = Arm(f"{node_id}/m", node_id, self.kind, "m", 0.5, 1)
                return Placement(task.task_id, arm, Tier.EDGE, node_id, "first", attempt=attempt)
        raise NodeUnavailable("every node just failed the task")

    async def call(self, task: Task) -> None:
        self.deadlines_s.append(task.deadline_s)
        if self.calls:
            await self.calls.pop(0)()

    async def execute(self, task: Task, arm_id: str, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        await self.call(task)
        yield TokenChunk("word", 1)
        yield WorkerOutcome(output_tokens=1)

    async def execute_segment(
        self, task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[FrameDetections | Classification | WorkerOutcome]:
        await self.call(task)
        if task.kind is TaskKind.VIDEO_CLASSIFY:
            yield Classification((LabelScore("meet", 1.0),))
        else:
            yield FrameDetections(0, 0.0, ())
        yield WorkerOutcome(frames=1)

    async def outcomes(self) -> list[Outcome]:
        await self.records.flush()
        return self.store._outcomes


def fails(error: BaseException) -> Callable[[], Any]:
    async def call() -> None:
        raise error

    return call


async def hangs() -> None:
    await asyncio.Event().wait()


async def run(fleet: FakeFleet, deadline_s: float = 30.0, **limits: Any) -> None:
    """Run one task of the fleet's kind to its end, as the gateway does."""
    task = Task("t", fleet.kind, deadline_s=deadline_s)
    client = cast(Any, fleet)
    attempts = AttemptLoop(client, lambda _: client, fleet.records, lambda _: 0.0, **limits)
    if fleet.kind is TaskKind.LLM:
        prompt = LlmPrompt(task, LlmInput(prompt="hi"), time.monotonic(), fit_to_context=True)
        async with attempts.run(LlmRun(prompt, client)) as answer:
            assert [chunk.text async for chunk in answer] == ["word"]
    else:
        segment = SegmentTask(task, fleet.profile_segment, SegmentInfo(0, 1, 8, 8), encode)
        async with attempts.run(SegmentRun(segment)) as result:
            assert result.frame_count == 1


async def encode(_: Arm) -> list[EncodedFrame]:
    return [FRAME]


LAST_STATUS = [
    (RuntimeError("a bug"), RuntimeError, OutcomeStatus.FAILED, "RuntimeError"),
    (TimeoutError("of a library, not the deadline"), TimeoutError, OutcomeStatus.FAILED, "TimeoutError"),
    (InvalidTask("wrong schema"), InvalidTask, OutcomeStatus.CANCELLED, "wrong schema"),
    (NoFeasibleArm("not here"), NoFeasibleArm, OutcomeStatus.FAILED, "not here"),
    (DeadlineExceeded("in the queue"), DeadlineExceeded, OutcomeStatus.DEADLINE_EXCEEDED, "in the queue"),
    (asyncio.CancelledError(), asyncio.CancelledError, OutcomeStatus.CANCELLED, "the task was cancelled"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("error", "raised", "status", "message"), LAST_STATUS, ids=lambda v: type(v).__name__)
async def test_an_error_that_is_not_retried_ends_every_kind_of_task_alike(
    kind: TaskKind, error: BaseException, raised: type[BaseException], status: OutcomeStatus, message: str
) -> None:
    fleet = FakeFleet(kind, [fails(error)])
    with pytest.raises(raised):
        await run(fleet)
    (outcome,) = await fleet.outcomes()
    assert (outcome.node_id, outcome.status, outcome.error) == ("a", status, message)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NodeUnavailable("gone"), OutcomeStatus.FAILED),
        (QueueFull("full"), OutcomeStatus.REJECTED),
        (Internal("engine broke"), OutcomeStatus.FAILED),
    ],
    ids=lambda v: type(v).__name__,
)
async def test_a_failure_of_one_node_is_retried_on_another_in_every_kind(
    kind: TaskKind, error: Exception, status: OutcomeStatus
) -> None:
    fleet = FakeFleet(kind, [fails(error)])
    await run(fleet)
    outcomes = [(o.node_id, o.status, o.error) for o in await fleet.outcomes()]
    assert outcomes == [("a", status, str(error)), ("b", OutcomeStatus.OK, "")]
    assert fleet.asked == [(1, ()), (2, ("a",))]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_deadline_ends_every_kind_of_task_alike(kind: TaskKind) -> None:
    fleet = FakeFleet(kind, [hangs])
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s; allow more time"):
        await run(fleet, deadline_s=0.05)
    (outcome,) = await fleet.outcomes()
    assert outcome.status is OutcomeStatus.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_task_is_recorded_as_cancelled_and_stays_cancelled(kind: TaskKind) -> None:
    called = asyncio.Event()

    async def hangs_and_says_so() -> None:
        called.set()
        await hangs()

    fleet = FakeFleet(kind, [hangs_and_says_so])
    running = asyncio.create_task(run(fleet))
    await called.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    (outcome,) = await fleet.outcomes()
    assert outcome.status is OutcomeStatus.CANCELLED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [NodeDied("died of it"), Internal("engine broke")], ids=lambda v: type(v).__name__)
async def test_a_task_that_fails_everywhere_ends_after_the_attempts_of_its_kind(kind: TaskKind, error: Any) -> None:
    fleet = FakeFleet(kind, [fails(error)] * 100)
    with pytest.raises(type(error), match=str(error)):
        await run(fleet)
    expected = 3 if kind is TaskKind.LLM else 6
    assert RETRY_LIMITS[kind].attempts == expected
    assert [o.node_id for o in await fleet.outcomes()] == list("abcdefgh")[:expected]


ABSENT = [
    NodeUnavailable("away", retry_after_s=4.0),
    NoAnswer("silent", retry_after_s=4.0),
    QueueFull("full", retry_after_s=4.0),
]


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried_module, "ROOM_POLL_S", 0.0)


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", ABSENT, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("where", ["profiler_errors", "scheduler_errors"])
async def test_only_accepted_work_waits_for_a_service(kind: TaskKind, error: Exception, where: str) -> None:
    fleet = FakeFleet(kind, **{where: [error] * 50})
    if kind is TaskKind.LLM:
        with pytest.raises(type(error), match=str(error)):
            await run(fleet)
    else:
        await run(fleet)
        assert [o.status for o in await fleet.outcomes()] == [OutcomeStatus.OK]


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", ABSENT, ids=lambda v: type(v).__name__)
async def test_only_accepted_work_waits_for_nodes_and_an_absence_is_no_attempt(
    kind: TaskKind, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More absences than a task has attempts; without breakers, which would slow them down.
    monkeypatch.setattr(NodeBreakers, "begin", lambda *_: True)
    monkeypatch.setattr(NodeBreakers, "shut", lambda *_: [])
    fleet = FakeFleet(kind, [fails(error)] * 20, node_ids="a")
    if kind is TaskKind.LLM:
        with pytest.raises(type(error), match=str(error)):  # not the scheduler's "every node just failed the task"
            await run(fleet)
    else:
        await run(fleet)
        assert fleet.asked[:3] == [(1, ()), (2, ("a",)), (2, ())]
        assert (await fleet.outcomes())[-1].status is OutcomeStatus.OK


@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("kind", [TaskKind.VIDEO_DETECT, TaskKind.VIDEO_CLASSIFY])
@pytest.mark.parametrize(("param", "waits"), [("model", True), ("kind", True), ("min_quality", False)])
async def test_accepted_work_waits_for_the_only_node_that_can_do_it(kind: TaskKind, param: str, waits: bool) -> None:
    fleet = FakeFleet(kind, scheduler_errors=[NoFeasibleArm("none now", param=param)] * 5)
    if waits:
        await run(fleet)
    else:
        with pytest.raises(NoFeasibleArm):
            await run(fleet)


@pytest.mark.parametrize("kind", [TaskKind.VIDEO_DETECT, TaskKind.VIDEO_CLASSIFY])
@pytest.mark.parametrize("where", ["profiler_errors", "scheduler_errors", "calls"])
async def test_the_deadline_ends_the_wait_for_what_is_away(kind: TaskKind, where: str) -> None:
    away = NodeUnavailable("away", retry_after_s=4.0)
    fleet = FakeFleet(kind, **{where: [fails(away) if where == "calls" else away] * 10_000}, node_ids="a")
    with pytest.raises(DeadlineExceeded):
        await run(fleet, deadline_s=0.1)
    assert len(fleet.asked) < 10, "it waits between two questions"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_gets_the_time_that_is_left(kind: TaskKind) -> None:
    async def takes_time() -> None:
        await asyncio.sleep(0.02)
        raise NodeUnavailable("gone")

    fleet = FakeFleet(kind, [takes_time])
    await run(fleet, deadline_s=30.0)
    first_s, second_s = fleet.deadlines_s
    assert 0.01 < first_s - second_s < 30.0
    assert first_s <= 30.0
    assert {outcome.deadline_s for outcome in await fleet.outcomes()} == {30.0}


async def test_a_budget_that_is_empty_ends_a_chat_and_delays_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "OVER_BUDGET_S", 0.01)
    chat = FakeFleet(TaskKind.LLM, [fails(Internal("engine broke"))])
    with pytest.raises(Internal, match="engine broke"):
        await run(chat, budget=RetryBudget(0.2, 0))
    assert [o.node_id for o in await chat.outcomes()] == ["a"]
    clip = FakeFleet(TaskKind.VIDEO_DETECT, [fails(Internal("engine broke"))])
    await run(clip, budget=RetryBudget(0.2, 0))
    assert [o.node_id for o in await clip.outcomes()] == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_that_keeps_failing_gets_no_more_tasks(kind: TaskKind) -> None:
    breakers = NodeBreakers()
    for _ in range(FAILURES):
        await run(FakeFleet(kind, [fails(NodeUnavailable("gone"))]), breakers=breakers)
    fleet = FakeFleet(kind)
    await run(fleet, breakers=breakers)
    assert fleet.asked == [(1, ("a",))], "the scheduler is told before it places"
    assert [o.node_id for o in await fleet.outcomes()] == ["b"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [InvalidTask("wrong schema"), DeadlineExceeded("late"), asyncio.CancelledError()],
    ids=lambda v: type(v).__name__,
)
async def test_mistakes_of_callers_never_open_a_breaker(kind: TaskKind, error: BaseException) -> None:
    breakers = NodeBreakers()
    for _ in range(2 * FAILURES):
        with pytest.raises(type(error)):
            await run(FakeFleet(kind, [fails(error)]), breakers=breakers)
    assert breakers.state("a", time.monotonic()) is BreakerState.CLOSED
