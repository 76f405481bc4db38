"""One node in this process: real gRPC on a free port, a real Valkey, emulated engines."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
import structlog

from skyshore.adapters.energy_modelled import ModelledMeter
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import NodeUnavailable, StoreBusy, StoreUnavailable
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.node import Node, NodeStatus, Tier
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import EncodedFrame, SegmentInfo
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.engines.emulated.video import EmulatedVideoEngine
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.runtime.serve import GrpcService, RunningServer, grpc_server
from skyshore.v1 import worker_service_pb2 as pb
from skyshore.v1 import worker_service_pb2_grpc
from skyshore.wire.pairs import FRAME, LLM_INPUT, SEGMENT, TASK, TOKEN_CHUNK, WORKER_OUTCOME
from skyshore.wire.status import from_rpc_error
from skyshore.worker.executor import ServedDetector, ServedLlm, WorkerExecutor
from skyshore.worker.registration import STOP_TIMEOUT_S, Registration, registered
from skyshore.worker.servicer import SERVICE, WorkerServicer
from tests.fakes.virtual_time import run_in_virtual_time

LLM = LlmSpeed(
    "talker",
    "modelled:test",
    0.5,
    iteration_s=0.004,
    prefill_token_s=1e-5,
    row_s=0.0005,
    slots=2,
    queue=1,
    busy_watts=50,
)
VIDEO = VideoSpeed("watcher", "modelled:test", 0.5, frame_s=0.005, slots=1, queue=1, busy_watts=20)


class Running:
    """A node and a plain stub to it."""

    def __init__(
        self, executor: WorkerExecutor, server: RunningServer, stub: worker_service_pb2_grpc.WorkerServiceStub
    ) -> None:
        self.executor, self.server, self.stub = executor, server, stub

    def ask(self, *, tokens: int = 20, deadline_s: float = 100.0, arm: str = "n/talker", prompt: str = "ebb and flow"):
        task = Task("t", TaskKind.LLM, deadline_s=deadline_s)
        llm = LlmInput(prompt=prompt, sampling=Sampling(max_tokens=tokens, ignore_eos=True))
        return self.stub.Execute(pb.ExecuteRequest(task=TASK.to_proto(task), arm_id=arm, llm=LLM_INPUT.to_proto(llm)))


@asynccontextmanager
async def node() -> AsyncIterator[Running]:
    talker = await EmulatedLlmEngine.start(LLM)
    watcher = EmulatedVideoEngine(VIDEO)
    served = [ServedLlm(llm_arm("n", LLM), talker), *(ServedDetector(arm, watcher) for arm in video_arms("n", [VIDEO]))]
    meter = ModelledMeter("nodemodel", 5.0, lambda: talker.busy_joules() + watcher.busy_joules())
    executor = WorkerExecutor("n", served, meter, 5.0)
    service = GrpcService(
        SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(executor)
    )
    try:
        async with (
            grpc_server([service], "127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            yield Running(executor, server, worker_service_pb2_grpc.WorkerServiceStub(channel))
    finally:
        await executor.close()


async def finished(call) -> tuple[str, list, object]:
    """Text, chunks and outcome of a whole call."""
    chunks, outcome = [], None
    async for response in call:
        if response.WhichOneof("event") == "chunk":
            chunks.append(TOKEN_CHUNK.from_proto(response.chunk))
        else:
            outcome = WORKER_OUTCOME.from_proto(response.outcome)
    return "".join(chunk.text for chunk in chunks), chunks, outcome


async def until(condition, within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def test_an_answer_streams_in_the_profile_s_time_with_right_counts_and_joules():
    async with node() as n:
        text, chunks, outcome = await finished(n.ask(tokens=20))
    assert text.split() == (["ebb", "and", "flow"] * 7)[:20]
    assert len(chunks) > 5, "tokens come as they appear"
    assert sum(chunk.token_count for chunk in chunks) == outcome.output_tokens == 20
    assert [c.finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].prompt_tokens == outcome.prompt_tokens == 3
    busy_s = 0.004 + 3e-5 + 19 * 0.0045
    took_s = outcome.prefill_s + outcome.compute_s
    assert took_s >= busy_s - 0.002, "the profile's time, and what a busy machine adds"
    assert outcome.inference_joules == pytest.approx(busy_s * 50, rel=0.1)
    assert outcome.idle_joules == pytest.approx(took_s * 5, rel=0.4, abs=0.5)
    assert outcome.energy_source == "modelled:nodemodel"


async def test_a_segment_comes_back_frame_by_frame_in_order():
    async with node() as n:
        task = Task("t", TaskKind.VIDEO_DETECT, deadline_s=100)

        async def parts() -> AsyncIterator[pb.ExecuteSegmentRequest]:
            info = SEGMENT.to_proto(SegmentInfo(0, 8, 640, 480, classes=("boat",)))
            header = pb.SegmentHeader(task=TASK.to_proto(task), arm_id="n/watcher@source/jpeg85", info=info)
            yield pb.ExecuteSegmentRequest(header=header)
            for index in range(8):
                yield pb.ExecuteSegmentRequest(frame=FRAME.to_proto(EncodedFrame(index, index / 25, b"x")))

        responses = [response async for response in n.stub.ExecuteSegment(parts())]
    assert [r.detections.frame_index for r in responses[:-1]] == list(range(8))
    labels = {d.label for r in responses[:-1] for d in r.detections.detections}
    assert labels == {"boat"}
    outcome = WORKER_OUTCOME.from_proto(responses[-1].outcome)
    assert outcome.frames == 8
    assert outcome.inference_joules == pytest.approx(8 * 0.005 * 20, rel=0.2)


async def test_cancelling_frees_the_slot_within_a_step():
    async with node() as n:
        calls = [n.ask(tokens=5000) for _ in range(2)]
        for call in calls:
            await call.read()
        assert n.executor.report().running == 2
        calls[0].cancel()
        await until(lambda: n.executor.report().running == 1)
        assert (await finished(n.ask(tokens=3)))[2].output_tokens == 3
        calls[1].cancel()
        await until(lambda: n.executor.report().running == 0)


async def test_a_deadline_that_passes_while_generating_or_waiting_is_told_and_frees_the_room():
    async with node() as n:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await finished(n.ask(tokens=5000, deadline_s=0.1))
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        hogs = [n.ask(tokens=5000) for _ in range(2)]
        for hog in hogs:
            await hog.read()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await finished(n.ask(deadline_s=0.1))
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert n.executor.report().queued == 0
        for hog in hogs:
            hog.cancel()


async def test_one_task_too_many_is_refused_with_a_time_to_come_back():
    async with node() as n:
        hogs = [n.ask(tokens=5000) for _ in range(3)]
        await until(lambda: (n.executor.report().running, n.executor.report().queued) == (2, 1))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await finished(n.ask())
        error = from_rpc_error(raised.value)
        assert (error.code, error.retry_after_s) == ("queue_full", 1.0)
        for hog in hogs:
            hog.cancel()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"arm": "n/nobody"}, grpc.StatusCode.NOT_FOUND, "has no arm 'n/nobody'; it has n/talker"),
        ({"arm": "n/watcher@source/jpeg85"}, grpc.StatusCode.INVALID_ARGUMENT, "serves video.detect, not llm"),
        ({"prompt": "x" * 4 * 8192}, grpc.StatusCode.INVALID_ARGUMENT, "8192 tokens and the context 8192"),
    ],
)
async def test_what_cannot_be_done_is_said(change, code, said):
    async with node() as n:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await finished(n.ask(**change))
    assert raised.value.code() is code
    assert said in raised.value.details()


async def test_draining_finishes_streams_and_refuses_new_ones():
    async with node() as n:
        call = aiter(n.ask(tokens=60))
        await anext(call)
        n.executor.draining = True
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await finished(n.ask())
        assert isinstance(from_rpc_error(raised.value), NodeUnavailable)
        draining = asyncio.create_task(n.server.drain(60.0))
        outcome = (await finished(call))[2]
        assert outcome.output_tokens == 60
        await draining


async def test_energy_of_many_tasks_and_idle_time_adds_up_to_the_meter():
    async with node() as n:
        meter, ledger = n.executor._meter, n.executor._ledger

        def settled() -> tuple[float, float]:
            """The meter just before and just after the ledger is brought up to date: idle watts flow meanwhile."""
            earlier = meter.joules()
            n.executor.report()
            return earlier, meter.joules()

        begins, before = settled(), ledger.unassigned_joules
        outcomes = [o for _, _, o in await asyncio.gather(*(finished(n.ask(tokens=k)) for k in (5, 17, 9)))]
        ends = settled()
        charged = sum(o.inference_joules + o.idle_joules for o in outcomes)
        accounted = charged + ledger.unassigned_joules - before
    assert (ends[0] - begins[1]) * 0.99 <= accounted <= (ends[1] - begins[0]) * 1.01


def shown(node_id: str = "n") -> Node:
    return Node(node_id, Tier.EDGE, "127.0.0.1:1", (llm_arm(node_id, LLM),), engine="emulated", incarnation="1")


async def listed(store: RedisStore, good, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            if good(await store.nodes()):
                return
            await asyncio.sleep(0.01)


async def test_the_lease_is_kept_given_back_and_lapses_by_itself(valkey_url):
    store = RedisStore(valkey_url)
    try:
        async with node() as n:
            async with registered(shown(), n.executor.report, store):
                await listed(store, lambda nodes: len(nodes) == 1)
                n.executor.draining = True
                await listed(store, lambda nodes: nodes[0][1].draining)
            assert await store.nodes() == []
            # A node that dies says no farewell: its lease runs out.
            await Registration(shown(), n.executor.report, store).renew()
            assert len(await store.nodes()) == 1
            await listed(store, lambda nodes: not nodes)
    finally:
        await store.close()


def test_a_store_that_never_answers_holds_up_no_farewell():
    class Silent:
        async def register_node(self, node, status, lease_s):
            await asyncio.Event().wait()

        async def remove_node(self, node_id):
            await asyncio.Event().wait()

    async def stop() -> float:
        began_s = asyncio.get_running_loop().time()
        async with registered(shown(), lambda: NodeStatus("n"), Silent()) as registration:  # type: ignore[arg-type]
            await registration.announce_draining()
        return asyncio.get_running_loop().time() - began_s

    assert run_in_virtual_time(stop()) == pytest.approx(2 * STOP_TIMEOUT_S)


async def test_a_store_that_refuses_is_logged_once_and_found_again(monkeypatch):
    monkeypatch.setattr("skyshore.worker.registration.EVERY_S", 0.0)
    monkeypatch.setattr("skyshore.runtime.endure.LONGEST_WAIT_S", 0.01)

    class RefusingStore:
        refused, done = 0, 0

        async def register_node(self, node, status, lease_s):
            if self.done == 1 and self.refused < 5:
                self.refused += 1
                raise StoreUnavailable("the state store is out of memory") if self.refused % 2 else StoreBusy("full")
            self.done += 1
            await asyncio.sleep(0)

    store = RefusingStore()
    with structlog.testing.capture_logs() as lines:
        async with node() as n:
            renewing = asyncio.create_task(Registration(shown(), n.executor.report, store).renew_forever())
            async with asyncio.timeout(60):
                while store.done < 3:  # noqa: ASYNC110 - the fake has no event for it
                    await asyncio.sleep(0.01)
            renewing.cancel()
    said = [line["event"] for line in lines if line.get("loop") == "registration"]
    assert said == ["a dependency failed; trying again until it is back", "the dependency is back"]
    assert store.refused == 5


async def test_an_error_in_our_own_code_ends_the_node():
    class Broken:
        async def register_node(self, node, status, lease_s):
            raise KeyError("a bug")

    async with node() as n:
        with pytest.raises(KeyError):
            await Registration(shown(), n.executor.report, Broken()).renew_forever()  # type: ignore[arg-type]
