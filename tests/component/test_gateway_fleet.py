"""What the gateway says of itself and of the fleet."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx

from skyshore.domain.errors import NodeUnavailable
from skyshore.domain.node import Tier
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.profile import TaskProfile
from tests.fakes.gateway_services import FakeNode, world
from tests.fakes.memory_store import MemoryStore

ROOT = Path(__file__).parents[2]


async def test_nodes_and_models_come_from_the_registry(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("shore"), FakeNode("sky", Tier.CLOUD)) as w:
        nodes = (await w.client.get("/v1/nodes")).json()["nodes"]
        assert [(n["node_id"], n["tier"], n["engine"]) for n in nodes] == [
            ("shore", "edge", "emulated"),
            ("sky", "cloud", "emulated"),
        ]
        assert nodes[0]["arms"][0]["arm_id"] == "shore/tiny"
        assert nodes[0]["status"]["node_id"] == "shore"
        models = (await w.client.get("/v1/models")).json()["data"]
        assert [(m["id"], m["object"], m["nodes"], m["max_model_len"]) for m in models] == [
            ("actions", "model", ["shore", "sky"], None),
            ("boxes", "model", ["shore", "sky"], None),
            ("tiny", "model", ["shore", "sky"], 100),
        ]
        assert (await w.client.get("/v1/models/tiny")).json()["id"] == "tiny"
        await w.store.remove_node("sky")

        async def one_left() -> bool:
            return len((await w.client.get("/v1/nodes")).json()["nodes"]) == 1

        await w.eventually(one_left)


async def test_policy_can_be_read_and_changed(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        assert (await w.client.get("/v1/policy")).json() == {"policy": "first", "available": ["first", "second"]}
        response = await w.client.put("/v1/policy", json={"policy": "second"})
        assert response.json()["policy"] == "second"
        assert w.scheduler.policy == "second"


async def test_decisions_newest_first(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        await w.store.append_decisions([DecisionRecord(f"t{n}", n, "first", "standard", "n/tiny", 1.0) for n in (1, 2)])
        decisions = (await w.client.get("/v1/decisions?limit=1")).json()["decisions"]
        assert [d["task_id"] for d in decisions] == ["t2"]


async def test_ready_names_what_is_missing(tmp_path: Path) -> None:
    store = MemoryStore()
    async with world(tmp_path, FakeNode("n"), store=store) as w:
        assert (await w.client.get("/health")).json() == {"status": "ok"}
        ready = await w.client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "missing": {}})
        await store.remove_node("n")

        async def unready() -> bool:
            return (await w.client.get("/ready")).status_code == 503

        await w.eventually(unready)
        ready = await w.client.get("/ready")
        assert list(ready.json()["missing"]) == ["nodes"]
        store.reachable = False
        assert set((await w.client.get("/ready")).json()["missing"]) == {"store", "nodes"}
        assert (await w.client.get("/health")).status_code == 200
        store.reachable = True


async def test_ready_without_a_scheduler(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:

        async def away() -> tuple[str, tuple[str, ...]]:
            raise NodeUnavailable("the scheduler is away")

        w.deps.scheduler.policy = away  # type: ignore[method-assign]
        assert (await w.client.get("/ready")).json()["missing"] == {"scheduler": "the scheduler is away"}


async def test_ready_without_a_profiler(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:

        async def away(*_: object) -> TaskProfile:
            raise NodeUnavailable("the profiler is away")

        w.deps.profiler.profile_llm = away  # type: ignore[method-assign]
        ready = await w.client.get("/ready")
        assert (ready.status_code, ready.json()["missing"]) == (503, {"profiler": "the profiler is away"})


async def test_metrics_count_requests_by_outcome(tmp_path: Path) -> None:
    def requests(text: str) -> float:
        found = re.search(r'^skyshore_requests_total\{kind="llm",status="ok"\} (\S+)', text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    async with world(tmp_path, FakeNode("n")) as w:
        before = requests((await w.client.get("/metrics")).text)
        await w.client.post("/v1/completions", json={"prompt": "x"})
        text = (await w.client.get("/metrics")).text
        assert requests(text) == before + 1
        for name in ("skyshore_ttft_seconds", "skyshore_gateway_overhead_seconds", "skyshore_requests_in_flight"):
            assert name in text


async def test_openapi_describes_every_route_with_its_body(tmp_path: Path) -> None:
    async with world(tmp_path, FakeNode("n")) as w:
        page = (await w.client.get("/openapi.json")).json()
        paths = page["paths"]
        for path, method in {
            "/v1/chat/completions": "post",
            "/v1/completions": "post",
            "/v1/models": "get",
            "/v1/video/detections": "post",
            "/v1/tasks/{task_id}": "get",
            "/v1/tasks/{task_id}/events": "get",
            "/v1/tasks/{task_id}/result": "get",
            "/v1/tasks/{task_id}/annotated.mp4": "get",
            "/v1/nodes": "get",
            "/v1/policy": "put",
            "/v1/decisions": "get",
            "/health": "get",
            "/ready": "get",
        }.items():
            assert method in paths[path], path
        body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = body["$ref"].rpartition("/")[2]
        assert "messages" in page["components"]["schemas"][name]["properties"]
        references = set(re.findall(r'"#/components/schemas/([^"]+)"', str(page).replace("'", '"')))
        assert references <= set(page["components"]["schemas"])
        form = paths["/v1/video/detections"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert {"file", "class", "deadline_s", "classes"} <= set(form["properties"])


async def test_process_starts_says_what_is_missing_stays_small_and_stops_on_sigterm(tmp_path: Path) -> None:
    env = os.environ | {
        "SKYSHORE_GATEWAY_LISTEN": "127.0.0.1:0",
        "SKYSHORE_REDIS_URL": "redis://127.0.0.1:1/0",
        "SKYSHORE_SCHEDULER_ADDRESS": "127.0.0.1:1",
        "SKYSHORE_PROFILER_ADDRESS": "127.0.0.1:1",
        "SKYSHORE_STATE_DIR": str(tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", cwd=ROOT, env=env, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 100)).decode()
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert port, line
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port[1]}", timeout=60) as client:
            assert (await client.get("/health")).status_code == 200
            ready = await client.get("/ready")
            assert set(ready.json()["missing"]) == {"store", "scheduler", "profiler", "nodes"}
            body = {"messages": [{"role": "user", "content": "hi"}]}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 503
        status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
        resident_kb = int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
        assert resident_kb < 150_000
    finally:
        process.send_signal(signal.SIGTERM)
        rest = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, rest
