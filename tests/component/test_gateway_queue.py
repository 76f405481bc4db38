"""Clips of many callers through one gateway: who waits for whom, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.video import job_queue
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, world

DETECT, CLASSIFY = "/v1/video/detections", "/v1/video/classifications"


async def upload(w: World, clip: Path, **fields: Any) -> httpx.Response:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    return await w.client.post(DETECT, files=files, data=fields)


async def state(w: World, task_id: str) -> str:
    return str((await w.client.get(f"/v1/tasks/{task_id}")).json()["state"])


async def done(w: World, task_id: str) -> bool:
    return await state(w, task_id) == "done"


async def test_a_small_interactive_clip_is_done_while_two_huge_batch_clips_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "SHORT_PIXELS", 30 * 320 * 320)
    huge = make_clip(tmp_path / "huge.mp4", frames=200)
    small = make_clip(tmp_path / "small.mp4", frames=20)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_segment_s=1.0) as w:
        slow = [(await upload(w, huge, **{"class": "batch"})).json()["task_id"] for _ in range(3)]
        await w.eventually(lambda: node.running == 8)  # two clips, four segments each
        third = slow[2]
        assert await state(w, third) == "accepted"
        quick = (await upload(w, small, **{"class": "interactive"})).json()["task_id"]
        await w.eventually(lambda: node.running == 10)
        assert node.hold
        held, node.hold = node.hold, None
        quicker = (await upload(w, small, **{"class": "interactive"})).json()["task_id"]
        assert [await state(w, task_id) for task_id in slow] == ["running", "running", "accepted"]
        held.set()
        for task_id in (quick, quicker, *slow):
            await w.eventually(lambda task_id=task_id: done(w, task_id))


async def test_waiting_clips_begin_by_class_and_then_by_deadline(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=10)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_jobs_in_flight=1) as w:
        wanted = [
            ("batch", "500"),
            ("batch", "400"),
            ("standard", "500"),
            ("interactive", "300"),
            ("interactive", "200"),
        ]
        first = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running == 1)
        ids = [
            (await upload(w, clip, deadline_s=seconds, **{"class": name})).json()["task_id"] for name, seconds in wanted
        ]
        assert node.hold
        node.hold.set()
        for task_id in ids:
            await w.eventually(lambda task_id=task_id: done(w, task_id))
        assert [header.task.job_id for header in node.segments] == [first, *reversed(ids[3:]), ids[2], ids[1], ids[0]]


async def test_a_caller_may_not_have_more_open_clips_than_its_bound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=10)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_caller_jobs=2) as w:
        accepted = [await upload(w, clip) for _ in range(2)]
        refused = await upload(w, clip)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert "2 open jobs" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert len(list((tmp_path / "s" / "uploads").iterdir())) == 2, "the refused clip leaves no file"
        assert node.hold
        node.hold.set()
        for answer in accepted:
            await w.eventually(lambda answer=answer: done(w, answer.json()["task_id"]))
        assert (await upload(w, clip)).status_code == 202


async def test_a_clip_of_too_much_work_is_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=20)  # 20 × 320 × 320 = 2 million pixels
    async with world(tmp_path / "s", FakeNode("n"), gateway_max_clip_gigapixels=0.0020) as w:
        refused = await upload(w, clip)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "payload_too_large")
        assert "gigapixels" in refused.json()["error"]["message"]
        assert list((tmp_path / "s" / "uploads").iterdir()) == []
    async with world(tmp_path / "s", FakeNode("n"), gateway_max_clip_gigapixels=0.0021) as w:
        assert (await upload(w, clip)).status_code == 202


@pytest.mark.parametrize("path", [DETECT, CLASSIFY])
async def test_a_model_that_no_node_runs_is_refused_at_once(tmp_path: Path, path: str) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=10)
    async with world(tmp_path / "s", FakeNode("n"), gateway_media_root=tmp_path) as w:
        answer = await w.client.post(path, json={"url": clip.as_uri(), "model": "nonesuch"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert answer.json()["error"]["param"] == "model"
        wrong_kind = await w.client.post(path, json={"url": clip.as_uri(), "model": "tiny"})
        assert wrong_kind.status_code == 404, "a model of another kind of task"
        right = {"url": clip.as_uri(), "model": "boxes" if path == DETECT else "actions"}
        assert (await w.client.post(path, json=right)).status_code == 202
