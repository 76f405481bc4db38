"""Clips through a real gateway: accepted, cut, placed, merged, handed out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest

from gateway import tried
from gateway.video import job_runner
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import Internal, InvalidMedia, NodeUnavailable
from skyshore.domain.job import Job, TaskRecord, TaskState
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, serving_http, serving_node, world
from tests.fakes.memory_store import MemoryStore

DETECT = "/v1/video/detections"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """2 s at 10 frames a second."""
    return make_clip(tmp_path / "clip.mp4")


async def upload(w: World, clip: Path, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    return await w.client.post(DETECT, files=files, data=fields, headers=headers)


async def ended(w: World, task_id: str) -> dict[str, Any]:
    async def over() -> bool:
        body = (await w.client.get(f"/v1/tasks/{task_id}")).json()
        return body["state"] in ("done", "failed")

    await w.eventually(over)
    body: dict[str, Any] = (await w.client.get(f"/v1/tasks/{task_id}")).json()
    return body


async def test_upload_is_accepted_worked_off_and_handed_out(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("shore-1"), gateway_segment_s=0.5) as w:
        response = await upload(w, clip, classes="person, car", min_score="0.5")
        assert response.status_code == 202
        task_id = response.json()["task_id"]
        assert response.headers["location"] == f"/v1/tasks/{task_id}"
        record = await ended(w, task_id)
        assert (record["state"], record["progress"], record["nodes"]) == ("done", 1.0, ["shore-1"])
        result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
        assert [frame["frame_index"] for frame in result["frames"]] == list(range(20))
        assert [round(frame["timestamp_s"], 1) for frame in result["frames"]] == [n / 10 for n in range(20)]
        assert result["frames"][3]["detections"] == [
            {"label": "person", "score": pytest.approx(0.9), "x1": 1, "y1": 2, "x2": 30, "y2": 40}
        ]
        assert [s["frames"] for s in result["segments"]] == [5, 5, 5, 5]
        header = w.nodes[0].segments[0]
        assert (header.info.source_width, header.info.source_height, header.info.frame_count) == (96, 64, 5)
        assert (list(header.info.classes), header.info.min_score) == (["person", "car"], 0.5)
        assert header.task.job_id == task_id
        movie = await w.client.get(f"/v1/tasks/{task_id}/annotated.mp4")
        (tmp_path / "out.mp4").write_bytes(movie.content)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 20
        await w.eventually(lambda: len(_outcomes(w)) == 4)
        for outcome in _outcomes(w):
            assert (outcome.status, outcome.quality) == (OutcomeStatus.OK, 0.6)
            assert outcome.up_bytes > 1000
            assert outcome.worker.frames == 5


def _outcomes(w: World) -> list[Any]:
    assert isinstance(w.store, MemoryStore)
    return w.store._outcomes


async def test_profile_reaches_the_scheduler_per_segment(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_segment_s=1.5) as w:
        task_id = (await upload(w, clip, frame_stride="2", **{"class": "batch"})).json()["task_id"]
        await ended(w, task_id)
        profiles = [placed.profile for placed in w.scheduler.placed]
        assert [(p.frame_count, p.width, p.height, p.fps) for p in profiles] == [(8, 96, 64, 10), (3, 96, 64, 10)]
        assert all(list(p.complexity) == [0.5] and p.input_bytes > 0 for p in profiles)
        assert {placed.task.service_class for placed in w.scheduler.placed} == {"batch"}
        assert {placed.task.deadline_s for placed in w.scheduler.placed} == {600}
        result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
        assert [frame["frame_index"] for frame in result["frames"]] == list(range(0, 20, 2))


async def test_boxes_as_mot_text_and_as_a_contact_sheet(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_segment_s=1.0) as w:
        task_id = (await upload(w, clip, frame_stride="2")).json()["task_id"]
        await ended(w, task_id)
        text = (await w.client.get(f"/v1/tasks/{task_id}/result?format=mot")).text
        assert text.splitlines()[:2] == [
            "1,-1,1.00,2.00,29.00,38.00,0.9000,-1,-1,-1",
            "3,-1,1.00,2.00,29.00,38.00,0.9000,-1,-1,-1",
        ]
        assert len(text.splitlines()) == 10
        assert (await w.client.get(f"/v1/tasks/{task_id}/result?format=mot&label=car")).text == ""
        assert (await w.client.get(f"/v1/tasks/{task_id}/result?format=xls")).status_code == 400
        sheet = await w.client.get(f"/v1/tasks/{task_id}/contact-sheet.png")
        assert sheet.headers["content-type"] == "image/png"
        picture = cv2.imdecode(np.frombuffer(sheet.content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1] == 4 * 320, "four tiles a row"


async def test_twenty_clips_at_once_keep_their_frames_in_order_and_complete(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{n}.mp4", frames=10 + n) for n in range(20)]
    nodes = [FakeNode("shore-1"), FakeNode("shore-2"), FakeNode("sky")]
    async with world(tmp_path / "s", *nodes, gateway_segment_s=0.4, gateway_jobs_in_flight=20) as w:
        accepted = await asyncio.gather(*(upload(w, clip) for clip in clips))
        task_ids = [answer.json()["task_id"] for answer in accepted]
        assert [(await ended(w, task_id))["state"] for task_id in task_ids] == ["done"] * 20
        for number, task_id in enumerate(task_ids):
            result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
            assert [frame["frame_index"] for frame in result["frames"]] == list(range(10 + number))
            assert [frame["timestamp_s"] for frame in result["frames"]] == [n / 10 for n in range(10 + number)]


async def test_events_follow_the_task_to_its_end(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_segment_s=0.5, gateway_segments_in_flight=1) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        seen = []
        async with w.client.stream("GET", f"/v1/tasks/{task_id}/events") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    assert node.hold
                    node.hold.set()
        assert seen[0]["state"] in ("accepted", "running")
        assert seen[-1]["state"] == "done"
        assert [s["progress"] for s in seen] == sorted(s["progress"] for s in seen)


async def test_segments_in_flight_are_bounded_and_run_beside_each_other(tmp_path: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    clip = make_clip(tmp_path / "long.mp4", frames=60)
    async with world(tmp_path / "s", node, gateway_segment_s=0.5, gateway_segments_in_flight=3) as w:
        first = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running == 3)
        second = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running == 6)  # by now a fourth segment of the first clip would run as well
        assert Counter(header.task.job_id for header in node.segments) == {first: 3, second: 3}
        assert node.hold
        node.hold.set()
        for task_id in (first, second):
            await ended(w, task_id)
            result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
            assert [frame["frame_index"] for frame in result["frames"]] == list(range(60))
        assert node.max_segments_at_once == 6


async def test_segment_of_a_node_that_dies_is_redone_elsewhere(tmp_path: Path, clip: Path) -> None:
    dying = FakeNode("dying", fail_with=NodeUnavailable("gone"), fail_after=3)
    async with world(tmp_path / "s", dying, FakeNode("good"), gateway_segment_s=1.0) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        record = await ended(w, task_id)
        assert (record["state"], record["nodes"]) == ("done", ["good"])
        result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
        assert [frame["frame_index"] for frame in result["frames"]] == list(range(20))
        statuses = sorted((o.node_id, o.status.value) for o in _outcomes(w))
        assert statuses == [("dying", "failed"), ("dying", "failed"), ("good", "ok"), ("good", "ok")]


async def test_a_whole_fleet_that_restarts_is_waited_for(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_segment_s=1.0) as w:
        w.scheduler.nodes = []
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: len(w.scheduler.placed) > 1)
        w.scheduler.nodes = w.nodes
        assert (await ended(w, task_id))["state"] == "done"


async def test_missed_deadline_is_reported(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node) as w:
        task_id = (await upload(w, clip, deadline_s="0.3")).json()["task_id"]
        record = await ended(w, task_id)
        assert (record["state"], record["error"]["code"]) == ("failed", "deadline_exceeded")
        await w.eventually(lambda: node.running == 0)
        response = await w.client.get(f"/v1/tasks/{task_id}/result")
        assert response.status_code == 404
        assert "deadline_exceeded" in response.json()["error"]["message"]


async def test_failure_that_would_come_again_ends_the_task_at_once(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n", fail_with=InvalidMedia("cannot decode"))) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        record = await ended(w, task_id)
        assert (record["state"], record["error"]["code"]) == ("failed", "invalid_media")
        assert len(w.nodes[0].segments) == 1


async def test_job_that_keeps_failing_is_moved_to_the_dead_letters_after_three_tries(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "ROOM_POLL_S", 0.02)
    node = FakeNode("n", fail_with=Internal("engine broke"))
    async with world(tmp_path / "s", node, gateway_job_idle_s=0.3) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        record = await ended(w, task_id)
        assert (record["state"], record["error"]["code"]) == ("failed", "internal")
        assert isinstance(w.store, MemoryStore)
        assert [dead[0] for dead in w.store.dead] == [task_id]


async def test_job_that_takes_long_is_kept_by_renewing_it(
    tmp_path: Path, clip: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "BLOCK_S", 0.1)
    store = RedisStore(valkey_url)
    renew, renewals = store.renew_job, 0

    async def counted(consumer: str, job: Job, record: TaskRecord | None = None) -> None:
        nonlocal renewals
        await renew(consumer, job, record)
        renewals += 1

    monkeypatch.setattr(store, "renew_job", counted)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, gateway_job_idle_s=1.2, gateway_segment_s=5.0) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running == 1)
        await w.eventually(lambda: renewals >= 6)  # every 0.4 s: twice as long as an unrenewed job would stay
        assert (await store.waiting_jobs(1.2))[1] == []
        assert len(node.segments) == 1
        assert node.hold
        node.hold.set()
        assert (await ended(w, task_id))["state"] == "done"
        assert len(node.segments) == 1
    await store.close()


async def test_job_of_a_gateway_that_died_is_finished_by_the_next(tmp_path: Path, clip: Path, valkey_url: str) -> None:
    store = RedisStore(valkey_url)
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, store=store, gateway_job_idle_s=1.0) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: node.running == 1)
        for task in asyncio.all_tasks():  # it stops without a message to the store
            if "JobRunner.run" in repr(task.get_coro()):
                task.cancel()
        await w.eventually(lambda: node.running == 0)
        async with serving_http(w.deps) as port:  # a second gateway on the same store
            assert node.hold
            node.hold.set()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as second:
                w.client = second
                record = await ended(w, task_id)
                assert record["state"] == "done"
                result = (await second.get(f"/v1/tasks/{task_id}/result")).json()
                assert len(result["frames"]) == 20
    await store.close()


async def test_local_file_by_url(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_media_root=tmp_path) as w:
        body = {"url": clip.as_uri(), "classes": ["person"], "class": "batch"}
        response = await w.client.post(DETECT, json=body)
        assert response.status_code == 202
        assert (await ended(w, response.json()["task_id"]))["state"] == "done"
        assert await asyncio.to_thread(clip.is_file)  # the caller's own file stays


async def test_store_down_is_503_and_leaves_no_file(tmp_path: Path, clip: Path) -> None:
    store = MemoryStore()
    async with world(tmp_path / "s", FakeNode("n"), store=store) as w:
        store.reachable = False
        response = await upload(w, clip)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "store_unavailable"
        assert list((tmp_path / "s" / "uploads").iterdir()) == []
        store.reachable = True


async def test_results_of_other_tasks_are_not_found(tmp_path: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n")) as w:
        for path in ("", "/events", "/result", "/annotated.mp4"):
            response = await w.client.get(f"/v1/tasks/nobody{path}")
            assert response.status_code == 404, path
            assert response.json()["error"]["code"] == "not_found"
        await w.store.put_task(TaskRecord("llm-1", TaskKind.LLM, TaskState.DONE, 0.0, 0.0))
        assert (await w.client.get("/v1/tasks/llm-1")).json()["state"] == "done"
        assert (await w.client.get("/v1/tasks/llm-1/result")).status_code == 404


async def test_node_that_leaves_for_good_and_comes_back_finishes_the_clip(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_segment_s=1.0) as w:
        away = FakeNode("m")
        async with serving_node(away):
            pass
        w.scheduler.nodes = [away, *w.nodes]
        task_id = (await upload(w, clip)).json()["task_id"]
        assert (await ended(w, task_id))["nodes"] == ["n"]
