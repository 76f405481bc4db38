"""DELETE /v1/tasks/{id}: a clip that waits or runs stops, leaves no file, and stays cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.video import job_run, job_runner
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.task import TaskKind
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, serving_http, world
from tests.fakes.memory_store import MemoryStore

DETECT, CLASSIFY = "/v1/video/detections", "/v1/video/classifications"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", frames=40)


async def upload(w: World, clip: Path, path: str = DETECT, wait: float = 0.0) -> httpx.Response:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    return await w.client.post(path, files=files, params={"wait": wait})


async def state(w: World, task_id: str) -> str:
    return str((await w.client.get(f"/v1/tasks/{task_id}")).json()["state"])


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "s").rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", [DETECT, CLASSIFY])
async def test_a_running_clip_stops_on_its_nodes_and_leaves_nothing(
    tmp_path: Path, clip: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_run, "RENEW_S", 300.0)  # it stops at once, not at the next renewal
    node = FakeNode("n", hold=asyncio.Event(), hold_after=2)
    slow = {"gateway_segment_s": 1.0, "gateway_segments_in_flight": 2, "gateway_job_idle_s": 900.0}
    async with world(tmp_path / "s", node, **slow) as w:
        task_id = (await upload(w, clip, path)).json()["task_id"]
        await w.eventually(lambda: node.running == (2 if path == DETECT else 1))
        answer = await w.client.delete(f"/v1/tasks/{task_id}")
        assert (answer.status_code, answer.json()["state"], answer.json()["task_id"]) == (200, "cancelled", task_id)
        await w.eventually(lambda: node.running == 0)
        await w.eventually(lambda: not files(tmp_path))
        again = await w.client.delete(f"/v1/tasks/{task_id}")
        assert (again.status_code, again.json()) == (200, answer.json())
        result = await w.client.get(f"/v1/tasks/{task_id}/result")
        assert (result.status_code, "cancelled" in result.json()["error"]["message"]) == (404, True)
        node.hold = None
        assert (await upload(w, clip, path, wait=30)).status_code == 200, "its place is free again"
        assert await state(w, task_id) == "cancelled"


async def test_a_waiting_clip_never_begins(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_jobs_in_flight=1) as w:
        first = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running > 0)
        second = (await upload(w, clip)).json()["task_id"]
        assert (await w.client.delete(f"/v1/tasks/{second}")).json()["state"] == "cancelled"
        assert [path.name[-32:] for path in files(tmp_path) if path.parent.name == "uploads"] == [first]
        assert node.hold
        node.hold.set()
        await w.eventually(lambda: state_is(w, first, "done"))
        assert {header.task.job_id for header in node.segments} == {first}


async def state_is(w: World, task_id: str, wanted: str) -> bool:
    return await state(w, task_id) == wanted


async def test_a_clip_that_runs_at_another_gateway_stops_there(tmp_path: Path, clip: Path, valkey_url: str) -> None:
    store = RedisStore(valkey_url)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store) as w, serving_http(w.deps) as port:
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running > 0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as other:  # one of the two runs it
            for client in (w.client, other):
                assert (await client.delete(f"/v1/tasks/{task_id}")).json()["state"] == "cancelled"
        await w.eventually(lambda: node.running == 0)
        await w.eventually(lambda: not files(tmp_path))
        assert await state(w, task_id) == "cancelled"
    await store.close()


async def test_the_gateway_that_runs_it_stops_by_the_store_alone(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner.JobRunner, "stop_job", lambda *_: None)  # as if it ran elsewhere
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_segment_s=1.0, gateway_segments_in_flight=1) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running > 0)
        assert (await w.client.delete(f"/v1/tasks/{task_id}")).json()["state"] == "cancelled"
        assert node.hold
        node.hold.set()  # a segment ends after the files were deleted
        await w.eventually(lambda: node.running == 0)
        await w.eventually(lambda: not files(tmp_path))
        assert await state(w, task_id) == "cancelled"


async def test_what_cannot_be_cancelled_is_said(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n")) as w:
        unknown = await w.client.delete("/v1/tasks/nobody")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        done = (await upload(w, clip, wait=30)).json()["task_id"]
        kept = files(tmp_path)
        for task_id in (done, "llm-1"):
            await w.store.put_task(TaskRecord("llm-1", TaskKind.LLM, TaskState.DONE, 0.0, 0.0))
            refused = await w.client.delete(f"/v1/tasks/{task_id}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "task_ended")
        assert await state(w, done) == "done"
        assert files(tmp_path) == kept
        await w.store.put_task(TaskRecord("orphan", TaskKind.VIDEO_DETECT, TaskState.RUNNING, 0.0, 0.0))
        assert (await w.client.delete("/v1/tasks/orphan")).json()["state"] == "cancelled"  # its job is gone
        assert await state(w, "orphan") == "cancelled"
        assert isinstance(w.store, MemoryStore)
        w.store.reachable = False
        assert (await w.client.delete(f"/v1/tasks/{done}")).status_code == 503
        w.store.reachable = True


async def test_a_local_file_of_the_caller_is_not_deleted(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_media_root=tmp_path) as w:
        task_id = (await w.client.post(DETECT, json={"url": clip.as_uri()})).json()["task_id"]
        assert (await w.client.delete(f"/v1/tasks/{task_id}")).status_code == 200
        assert await asyncio.to_thread(clip.is_file)


async def test_a_caller_who_waits_is_told_of_the_cancellation(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node) as w:
        waiting = asyncio.create_task(upload(w, clip, wait=60))
        await w.eventually(lambda: node.running > 0)
        assert isinstance(w.store, MemoryStore)
        (task_id,) = w.store._tasks
        events: list[Any] = []
        async with w.client.stream("GET", f"/v1/tasks/{task_id}/events") as response:
            await w.client.delete(f"/v1/tasks/{task_id}")
            events += [line async for line in response.aiter_lines() if line.startswith("data:")]
        assert '"cancelled"' in events[-1]
        answer = await waiting
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "task_ended")
