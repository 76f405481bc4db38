"""A node as its operator meets it: a process with an environment, signals and an exit status."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.task import Task, TaskKind
from skyshore.v1 import worker_service_pb2 as pb
from skyshore.v1 import worker_service_pb2_grpc
from skyshore.wire.pairs import LLM_INPUT, TASK


@asynccontextmanager
async def process(module: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SKYSHORE_")} | settings
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=env, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def listed(store: RedisStore, count: int, within_s: float = 100.0):
    async with asyncio.timeout(within_s):
        while True:
            if len(nodes := await store.nodes()) == count:
                return nodes
            await asyncio.sleep(0.05)


def slow_answer(stub, arm_id: str):
    task = Task("t", TaskKind.LLM, deadline_s=100)
    llm = LlmInput(prompt="tide", sampling=Sampling(max_tokens=40, ignore_eos=True))
    return stub.Execute(pb.ExecuteRequest(task=TASK.to_proto(task), arm_id=arm_id, llm=LLM_INPUT.to_proto(llm)))


async def test_sigterm_finishes_the_answer_and_leaves_the_registry_sigkill_lets_the_lease_lapse(valkey_url):
    store = RedisStore(valkey_url)
    settings = {
        "SKYSHORE_REDIS_URL": valkey_url,
        "SKYSHORE_NODE_ENGINE": "emulated",
        "SKYSHORE_NODE_MODELS": "smollm2-135m,nanodet",
        "SKYSHORE_NODE_SLOWDOWN": "4",
    }
    try:
        async with (
            process("edge_node", SKYSHORE_NODE_ID="shore", **settings) as edge,
            process("cloud_node", SKYSHORE_NODE_ID="sky", **settings) as cloud,
        ):
            nodes = {node.node_id: node for node, _ in await listed(store, 2)}
            assert (nodes["shore"].tier, nodes["sky"].tier) == ("edge", "cloud")
            assert "emulated" in nodes["sky"].engine and "4x slower" in nodes["sky"].engine
            assert {arm.arm_id for arm in nodes["sky"].arms} == {
                "sky/smollm2-135m",
                "sky/nanodet@416/jpeg85",
                "sky/nanodet@416/jpeg50",
            }
            async with grpc.aio.insecure_channel(nodes["sky"].address) as channel:
                call = aiter(slow_answer(worker_service_pb2_grpc.WorkerServiceStub(channel), "sky/smollm2-135m"))
                first = await anext(call)
                cloud.send_signal(signal.SIGTERM)
                tokens = first.chunk.token_count + sum([response.chunk.token_count async for response in call])
            assert tokens == 40, "a stream that had begun is finished"
            assert await asyncio.wait_for(cloud.wait(), 60) == 0
            assert [node.node_id for node, _ in await listed(store, 1)] == ["shore"]
            edge.kill()
            await listed(store, 0)
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SKYSHORE_NODE_MODELS": "smollm2-135m"}, "run `skyshore models fetch smollm2-135m`"),
        ({"SKYSHORE_NODE_ENGINE": "abacus"}, "engine: Input should be 'onnx'"),
        ({"SKYSHORE_NODE_ENGINE": "emulated", "SKYSHORE_NODE_PROFILE": "abacus"}, "give a profile file, or one of"),
        ({"SKYSHORE_NODE_ENGINE": "emulated", "SKYSHORE_NODE_MODELS": "gpt-9"}, "no model 'gpt-9' to emulate"),
        (
            {"SKYSHORE_NODE_ENGINE": "openai", "SKYSHORE_NODE_UPSTREAM_URL": "http://127.0.0.1:9"},
            "no OpenAI-compatible server at",
        ),
        (
            {"SKYSHORE_NODE_ENGINE": "emulated", "SKYSHORE_NODE_LISTEN": "192.0.2.1:1"},
            "can be reached from other machines",
        ),
        (
            {
                "SKYSHORE_NODE_ENGINE": "emulated",
                "SKYSHORE_NODE_LISTEN": "192.0.2.1:1",
                "SKYSHORE_ALLOW_WIDER_LISTEN": "true",
            },
            "cannot listen on 192.0.2.1:1",
        ),
    ],
)
async def test_a_node_that_cannot_start_says_why_in_one_line_and_fails(settings, said, tmp_path):
    async with process("edge_node", SKYSHORE_MODELS=str(tmp_path), **settings) as child:
        _, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == 1
    last = err.decode().strip().splitlines()[-1]
    assert last.startswith("error: ") and said in last


async def test_without_models_a_node_may_fall_back_to_emulation_and_says_so(valkey_url, tmp_path):
    store = RedisStore(valkey_url)
    settings = {
        "SKYSHORE_NODE_FALLBACK": "emulated",
        "SKYSHORE_MODELS": str(tmp_path),
        "SKYSHORE_REDIS_URL": valkey_url,
    }
    try:
        async with process("edge_node", **settings) as child:
            ((node, _),) = await listed(store, 1)
            assert node.engine.startswith("emulated")
            child.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(child.communicate(), 60)
        assert b"EMULATED" in err
    finally:
        await store.close()
