"""A profiler, a scheduler and nodes that can be told what to do, behind real gRPC; and a gateway before them."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from gateway.app import create_app
from gateway.deps import Deps
from gateway.settings import GatewaySettings
from skyshore.adapters.profiler_client import MuxProfilerClient
from skyshore.adapters.scheduler_client import MuxSchedulerClient
from skyshore.adapters.worker_client import WorkerPool
from skyshore.domain.errors import NodeUnavailable, NoFeasibleArm, NotFound, SkyshoreError
from skyshore.domain.llm import FinishReason, TokenChunk, TokenLogprob, TopLogprob
from skyshore.domain.node import Arm, Node, NodeStatus, Tier
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Classification, Detection, FrameDetections, LabelScore
from skyshore.mux.client import MuxChannel
from skyshore.ports import StateStore
from skyshore.runtime.serve import GrpcService, grpc_server
from skyshore.v1 import (
    profile_pb2,
    profiler_service_pb2,
    profiler_service_pb2_grpc,
    scheduler_service_pb2,
    scheduler_service_pb2_grpc,
    task_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from skyshore.wire.pairs import FRAME, FRAME_DETECTIONS, PLACEMENT, SEGMENT_EVENT, TASK, TOKEN_CHUNK, WORKER_OUTCOME
from skyshore.wire.status import BEGUN
from tests.fakes.memory_store import MemoryStore


class Profiler(profiler_service_pb2_grpc.ProfilerServiceServicer):
    """One token a word; video frames as they were probed."""

    def __init__(self) -> None:
        self.fail_with: SkyshoreError | None = None
        self.asked: list[Any] = []

    async def ProfileTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request.task)
        if self.fail_with:
            raise self.fail_with
        if request.WhichOneof("payload") == "video":
            profile = profile_pb2.TaskProfile()
            profile.CopyFrom(request.video.facts)
            profile.complexity.append(0.5)
            return profiler_service_pb2.ProfileTaskResponse(profile=profile)
        llm = request.llm
        text = llm.prompt or " ".join(turn.content for turn in llm.chat.messages)
        tokens = len(llm.token_ids.ids) or len(text.split())
        profile = profile_pb2.TaskProfile(prompt_tokens=tokens, expected_output_tokens=4)
        return profiler_service_pb2.ProfileTaskResponse(profile=profile)


@dataclass
class FakeNode(worker_service_pb2_grpc.WorkerServiceServicer):
    """Answers each LLM task with `words`, each frame with one box, each clip with two labels; fails when told to."""

    node_id: str
    tier: Tier = Tier.EDGE
    words: tuple[str, ...] = ("Hello", " big", " world")
    fail_with: SkyshoreError | None = None
    fail_after: int = 0
    """Events sent before `fail_with` is raised."""
    hold: asyncio.Event | None = None
    """Waited for before the first event, if set."""
    hold_after: int = 0
    """Events sent before `hold` is waited for."""
    context_tokens: int = 100
    begins: bool = True
    """Whether it says that it has begun a segment."""
    running: int = 0
    tasks: list[Any] = field(default_factory=list)
    segments: list[Any] = field(default_factory=list)
    frame_bytes: int = 0
    address: str = ""
    max_segments_at_once: int = 0

    @property
    def arms(self) -> tuple[Arm, ...]:
        llm = Arm(f"{self.node_id}/tiny", self.node_id, TaskKind.LLM, "tiny", 0.5, 4, 1e4, 1e3, self.context_tokens)
        video = Arm(
            f"{self.node_id}/boxes@64", self.node_id, TaskKind.VIDEO_DETECT, "boxes", 0.6, 2, frame_s=0.001,
            input_size=64, frame_stride=1,
        )  # fmt: skip
        clip = Arm(
            f"{self.node_id}/actions@48", self.node_id, TaskKind.VIDEO_CLASSIFY, "actions", 0.9, 2, frame_s=0.001,
            input_size=48, frame_stride=1,
        )  # fmt: skip
        return llm, video, clip

    def arm(self, kind: TaskKind) -> Arm:
        """Its one arm of a kind."""
        return next(arm for arm in self.arms if arm.kind is kind)

    async def _maybe(self, sent: int) -> None:
        if self.hold and sent == self.hold_after:
            await self.hold.wait()
        if self.fail_with and sent == self.fail_after:
            raise self.fail_with

    async def Execute(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.tasks.append(request)
        self.running += 1
        try:
            words = self.words[: request.llm.sampling.max_tokens]
            logprobs = request.llm.sampling.HasField("logprobs")
            for sent, word in enumerate(words):
                await self._maybe(sent)
                last = sent == len(words) - 1
                lp = (TokenLogprob(word, -0.5, (TopLogprob(word, -0.5), TopLogprob("x", -1.5))),) if logprobs else ()
                reason = (FinishReason.STOP if words == self.words else FinishReason.LENGTH) if last else None
                chunk = TokenChunk(word, 1, lp, reason, 5 if last else 0, 2 if last else 0)
                yield worker_service_pb2.ExecuteResponse(chunk=TOKEN_CHUNK.to_proto(chunk))
            await self._maybe(len(words))
            outcome = WorkerOutcome(
                queue_s=0.004, prompt_tokens=5, output_tokens=len(words), energy_source="modelled:test"
            )
            yield worker_service_pb2.ExecuteResponse(outcome=WORKER_OUTCOME.to_proto(outcome))
        finally:
            self.running -= 1

    async def ExecuteSegment(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.running += 1
        self.max_segments_at_once = max(self.max_segments_at_once, self.running)
        try:
            header, sent = None, 0
            async for message in request_iterator:
                if message.WhichOneof("part") == "header":
                    header = message.header
                    self.segments.append(header)
                    continue
                if not sent and self.begins:
                    await context.send_initial_metadata(BEGUN)
                await self._maybe(sent)
                frame = FRAME.from_proto(message.frame)
                self.frame_bytes += len(frame.data)
                sent += 1
                if header.task.kind == task_pb2.TASK_KIND_VIDEO_CLASSIFY:
                    continue
                box = Detection("person", 0.9, 1.0, 2.0, 30.0, 40.0)
                found = FrameDetections(frame.frame_index, frame.timestamp_s, (box,))
                yield worker_service_pb2.ExecuteSegmentResponse(detections=FRAME_DETECTIONS.to_proto(found))
            if header and header.task.kind == task_pb2.TASK_KIND_VIDEO_CLASSIFY:
                yield SEGMENT_EVENT.to_proto(Classification((LabelScore("meet", 0.75), LabelScore("part", 0.25)), 2, 3))
            outcome = WorkerOutcome(frames=sent, energy_source="modelled:test")
            yield worker_service_pb2.ExecuteSegmentResponse(outcome=WORKER_OUTCOME.to_proto(outcome))
        finally:
            self.running -= 1


class Scheduler(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    """Places each task on the first node it need not avoid."""

    def __init__(self, nodes: list[FakeNode]) -> None:
        self.nodes = nodes
        self.policy = "first"
        self.fail_with: SkyshoreError | None = None
        self.answers = asyncio.Event()
        """Cleared, it is connected and silent, like a stopped process."""
        self.answers.set()
        self.placed: list[Any] = []
        self.per_node: Counter[str] = Counter()

    async def Place(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.placed.append(request)
        await self.answers.wait()
        if self.fail_with:
            raise self.fail_with
        if not self.nodes:
            raise NodeUnavailable("no node is alive", retry_after_s=2.0)
        task, profile = TASK.from_proto(request.task), request.profile
        if task.model not in ("", "tiny", "boxes", "actions"):
            raise NoFeasibleArm(f"no live node runs model '{task.model}'", param="model")
        if profile.prompt_tokens > self.nodes[0].context_tokens:
            raise NoFeasibleArm("too many tokens", param="prompt")
        for node in self.nodes:
            if node.node_id not in request.avoid_node_ids:
                self.per_node[node.node_id] += 1
                return PLACEMENT.to_proto(
                    Placement(task.task_id, node.arm(task.kind), node.tier, node.address, self.policy)
                )
        raise NodeUnavailable("every node just failed it", retry_after_s=2.0)

    async def GetPolicy(self, request: Any, context: Any) -> Any:  # noqa: N802
        return scheduler_service_pb2.GetPolicyResponse(policy=self.policy, available=["first", "second"])

    async def SetPolicy(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.policy not in ("first", "second"):
            raise NotFound(f"no policy '{request.policy}'", param="policy")
        self.policy = request.policy
        return scheduler_service_pb2.SetPolicyResponse(policy=self.policy)


@dataclass
class World:
    """Everything that runs, with a client for the gateway's port."""

    scheduler: Scheduler
    profiler: Profiler
    nodes: list[FakeNode]
    store: StateStore
    client: httpx.AsyncClient
    port: int
    deps: Deps

    async def eventually(self, condition: Any) -> None:
        """Wait until `condition()` holds, at most a minute or so."""
        for _ in range(6000):
            value = condition()
            if (await value) if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the condition never held")


@asynccontextmanager
async def world(
    state_dir: Path, *nodes: FakeNode, store: StateStore | None = None, **settings: Any
) -> AsyncIterator[World]:
    """Start it all; `settings` are fields of GatewaySettings."""
    async with AsyncExitStack() as stack:
        scheduler, profiler = Scheduler(list(nodes)), Profiler()
        store = store or MemoryStore()
        scheduling = await stack.enter_async_context(
            grpc_server(
                [
                    GrpcService(
                        "skyshore.v1.SchedulerService",
                        scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server,
                        scheduler,
                    ),
                    GrpcService(
                        "skyshore.v1.ProfilerService",
                        profiler_service_pb2_grpc.add_ProfilerServiceServicer_to_server,
                        profiler,
                    ),
                ],
                "127.0.0.1:0",
            )
        )
        for node in nodes:
            await stack.enter_async_context(serving_node(node))
            await store.register_node(
                Node(node.node_id, node.tier, node.address, node.arms, engine="emulated"),
                NodeStatus(node.node_id),
                60.0,
            )
        control = MuxChannel(scheduling.address)
        stack.push_async_callback(control.close)
        workers = WorkerPool()
        stack.push_async_callback(workers.close)
        deps = Deps(
            GatewaySettings(state_dir=state_dir, **settings),
            store,
            MuxProfilerClient(control),
            MuxSchedulerClient(control),
            workers,
        )
        port = await stack.enter_async_context(serving_http(deps))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=100))
        yield World(scheduler, profiler, list(nodes), store, client, port, deps)


@asynccontextmanager
async def serving_node(node: FakeNode) -> AsyncIterator[None]:
    """A node on a port of its own; `node.address` says which."""
    service = GrpcService(
        "skyshore.v1.WorkerService", worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, node
    )
    async with grpc_server([service], node.address or "127.0.0.1:0") as server:
        node.address = server.address
        yield


@asynccontextmanager
async def serving_http(deps: Deps) -> AsyncIterator[int]:
    """The gateway on a real port, which is yielded."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(deps), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
