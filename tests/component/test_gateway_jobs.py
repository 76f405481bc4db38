"""Accepted clips survive what happens around them: services and disks that are away, and gateways that die."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway import tried
from gateway.video import finished, job_results, job_run, job_runner
from skyshore.adapters import service_call
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import NodeUnavailable
from skyshore.runtime import endure
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, serving_http, world
from tests.fakes.memory_store import MemoryStore

DETECT, CLASSIFY = "/v1/video/detections", "/v1/video/classifications"
SEGMENTS = 4
FAST = {"gateway_segment_s": 0.5, "gateway_segments_in_flight": 1, "gateway_job_idle_s": 0.6}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """2 s at 10 frames a second."""
    return make_clip(tmp_path / "clip.mp4")


@pytest.fixture(autouse=True)
def with_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "ROOM_POLL_S", 0.02)
    monkeypatch.setattr(job_runner, "BLOCK_S", 0.1)
    monkeypatch.setattr(endure, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(endure, "LONGEST_WAIT_S", 0.05)


async def upload(w: World, clip: Path, path: str = DETECT, **fields: Any) -> str:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    response = await w.client.post(path, files=files, data=fields)
    assert response.status_code == 202, response.text
    return str(response.json()["task_id"])


async def ended(w: World, task_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {}

    async def over() -> bool:
        nonlocal body
        body = (await w.client.get(f"/v1/tasks/{task_id}")).json()
        return body["state"] in ("done", "failed", "cancelled")

    await w.eventually(over)
    return body


async def assert_complete(w: World, task_id: str, frames: int = 20) -> None:
    record = await ended(w, task_id)
    assert (record["state"], record["error"]) == ("done", None)
    result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
    assert [frame["frame_index"] for frame in result["frames"]] == list(range(frames))
    assert [segment["index"] for segment in result["segments"]] == list(range(len(result["segments"])))


class StopsAfter(FakeNode):
    """Answers `free` segments; each later one waits for `hold`."""

    free = 0

    async def _maybe(self, sent: int) -> None:
        if len(self.segments) > self.free and self.hold:
            await self.hold.wait()


@pytest.mark.parametrize("path", [DETECT, CLASSIFY])
async def test_a_silent_scheduler_is_waited_for_until_the_deadline_of_the_clip(
    tmp_path: Path, clip: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_call, "LONGEST_S", 0.05)
    async with world(tmp_path / "s", FakeNode("n")) as w:
        w.scheduler.answers.clear()
        task_id = await upload(w, clip, path)
        await w.eventually(lambda: len(w.scheduler.placed) >= 3)  # asked again after each limit of the client
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        refused = await w.client.post("/v1/chat/completions", json=chat)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_answer")
        assert "scheduler" in refused.json()["error"]["message"]
        assert (await w.client.get(f"/v1/tasks/{task_id}")).json()["state"] == "running"
        w.scheduler.answers.set()
        assert (await ended(w, task_id))["state"] == "done"
        w.scheduler.answers.clear()
        late = await ended(w, await upload(w, clip, path, deadline_s="0.3"))
        w.scheduler.answers.set()
        assert (late["state"], late["error"]["code"]) == ("failed", "deadline_exceeded")


@pytest.mark.parametrize("path", [DETECT, CLASSIFY])
@pytest.mark.parametrize("away", ["scheduler", "profiler", "node", "fleet"])
async def test_what_is_away_is_waited_for_and_costs_no_try(tmp_path: Path, clip: Path, path: str, away: str) -> None:
    node = FakeNode("n")
    async with world(tmp_path / "s", node, gateway_job_tries=1, gateway_job_starts=1) as w:
        gone, places = NodeUnavailable("gone"), w.scheduler.placed
        if away == "scheduler":
            w.scheduler.fail_with = gone
        elif away == "profiler":
            w.profiler.fail_with = gone
        elif away == "fleet":
            w.scheduler.nodes = []
        else:
            node.fail_with = gone
            node.begins = False
        task_id = await upload(w, clip, path)
        seen = w.profiler.asked if away == "profiler" else places
        await w.eventually(lambda: len(seen) > 20)
        assert (await w.client.get(f"/v1/tasks/{task_id}")).json()["state"] == "running"
        w.scheduler.fail_with = w.profiler.fail_with = node.fail_with = None
        w.scheduler.nodes = w.nodes
        assert (await ended(w, task_id))["state"] == "done"


async def stop_runner(w: World, node: FakeNode) -> None:
    """End the gateway's jobs without a message to the store, as its death would."""
    for task in asyncio.all_tasks():
        if "JobRunner.run" in repr(task.get_coro()):
            task.cancel()
    await w.eventually(lambda: node.running == 0)


async def test_finished_segments_are_kept_when_gateways_die(tmp_path: Path, clip: Path, valkey_url: str) -> None:
    store = RedisStore(valkey_url)
    node = StopsAfter("n", hold=asyncio.Event())
    # One start without progress is the last: every one of these gateways makes progress.
    async with world(tmp_path / "s", node, store=store, gateway_job_starts=1, gateway_job_tries=1, **FAST) as w:
        node.free = 1
        task_id = await upload(w, clip)
        await w.eventually(lambda: len(node.segments) == 2)
        await stop_runner(w, node)
        for done in range(2, SEGMENTS):
            async with serving_http(w.deps):
                before = len(node.segments)
                node.free = before + 1
                await w.eventually(lambda before=before: len(node.segments) == before + 2)
                progress = (await w.client.get(f"/v1/tasks/{task_id}")).json()["progress"]
                assert progress >= (done - 1) / SEGMENTS, "never less than before the gateway died"
                await stop_runner(w, node)
        async with serving_http(w.deps):
            node.free = 1000
            await assert_complete(w, task_id)
    times = Counter(header.info.segment_index for header in node.segments)
    assert times == {0: 1, 1: 2, 2: 2, 3: 2}, "only the segment in work is done again"
    assert list((tmp_path / "s" / "parts").iterdir()) == []
    await store.close()


async def test_a_clip_that_ends_its_gateway_each_time_is_given_up(tmp_path: Path, clip: Path, valkey_url: str) -> None:
    store = RedisStore(valkey_url)
    node = StopsAfter("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, gateway_job_starts=3, **FAST) as w, AsyncExitStack() as more:
        task_id = await upload(w, clip)
        for start in range(1, 4):
            await w.eventually(lambda start=start: len(node.segments) == start)
            await stop_runner(w, node)
            await more.enter_async_context(serving_http(w.deps))
        record = await ended(w, task_id)
        assert (record["state"], record["error"]["code"]) == ("failed", "internal")
        assert "begun 3 times" in record["error"]["message"]
        assert len(node.segments) == 3
    await store.close()


async def test_a_full_disk_is_waited_for(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = finished.write_atomically, 0

    def full(target: Path, data: bytes) -> None:
        nonlocal failures
        if failures < 12:
            failures += 1
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(target, data)

    monkeypatch.setattr(job_results, "WRITE_AGAIN_S", 0.01)
    for module in (finished, job_results):
        monkeypatch.setattr(module, "write_atomically", full)
    async with world(tmp_path / "s", FakeNode("n"), gateway_job_tries=1, gateway_segment_s=0.5) as w:
        await assert_complete(w, await upload(w, clip))
    assert failures == 12


async def test_a_store_that_is_away_longer_than_the_claim_lasts_costs_nothing(tmp_path: Path, clip: Path) -> None:
    store = MemoryStore()
    node = StopsAfter("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, gateway_job_starts=1, gateway_job_tries=1, **FAST) as w:
        node.free = 2
        task_id = await upload(w, clip)
        await w.eventually(lambda: len(node.segments) == 3)
        store.reachable = False
        away_s = asyncio.get_running_loop().time()
        await w.eventually(lambda: asyncio.get_running_loop().time() > away_s + 1.0)
        store.reachable = True
        assert node.hold
        node.hold.set()
        await assert_complete(w, task_id)
        assert len(node.segments) == SEGMENTS, "the gateway did not claim its own running job again"


async def test_a_gateway_does_not_claim_its_own_running_job_again(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    looked, listed = 0, store.waiting_jobs

    async def looks_free(idle_s: float) -> Any:
        nonlocal looked
        found = await listed(idle_s)
        looked += bool(found[1])
        return found

    async def cannot_renew(*_: Any) -> None:
        raise NodeUnavailable("the state store does not answer")

    monkeypatch.setattr(store, "waiting_jobs", looks_free)
    monkeypatch.setattr(store, "renew_job", cannot_renew)
    monkeypatch.setattr(job_run.JobRun, "_begin", lambda *_: asyncio.sleep(0))
    node = StopsAfter("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, **FAST) as w:
        task_id = await upload(w, clip)
        await w.eventually(lambda: looked >= 4)  # the first time it was new, then its claim had run out
        assert len(node.segments) == 1
        assert node.hold
        node.hold.set()
        await assert_complete(w, task_id)
        assert len(node.segments) == SEGMENTS


async def test_a_missing_segment_file_or_a_damaged_one_is_done_again(
    tmp_path: Path, clip: Path, valkey_url: str
) -> None:
    store = RedisStore(valkey_url)
    node = StopsAfter("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, **FAST) as w:
        node.free = 3
        task_id = await upload(w, clip)
        await w.eventually(lambda: len(node.segments) == 4)
        await stop_runner(w, node)
        parts = sorted((tmp_path / "s" / "parts" / task_id).iterdir())
        assert len(parts) == 3
        parts[0].write_bytes(b'{"segment": {"in')
        parts[1].unlink()
        node.free = 1000
        async with serving_http(w.deps):
            await assert_complete(w, task_id)
    await store.close()
