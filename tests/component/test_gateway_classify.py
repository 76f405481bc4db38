"""Clips to be named: accepted, sampled, placed as one task, answered to callers that wait and to those that poll."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.payloads import ClipCut, payloads
from skyshore.domain.errors import InvalidMedia, NodeUnavailable
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.v1 import task_pb2
from skyshore.workload.arrival import Arrival
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, world
from tests.fakes.memory_store import MemoryStore

CLASSIFY = "/v1/video/classifications"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """2 s at 10 frames a second."""
    return make_clip(tmp_path / "clip.mp4")


async def upload(w: World, clip: Path, wait: float = 0.0, **fields: Any) -> httpx.Response:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    return await w.client.post(CLASSIFY, files=files, data=fields, params={"wait": wait} if wait else {})


async def ended(w: World, task_id: str) -> dict[str, Any]:
    async def over() -> bool:
        return (await w.client.get(f"/v1/tasks/{task_id}")).json()["state"] in ("done", "failed")

    await w.eventually(over)
    body: dict[str, Any] = (await w.client.get(f"/v1/tasks/{task_id}")).json()
    return body


async def test_a_clip_is_one_task_of_evenly_spaced_frames(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("sky-1"), gateway_segment_s=0.5) as w:
        response = await upload(w, clip)
        assert response.status_code == 202
        task_id = response.json()["task_id"]
        assert set(response.json()["links"]) == {"task", "events", "result"}
        record = await ended(w, task_id)
        assert (record["kind"], record["state"], record["nodes"]) == ("video.classify", "done", ["sky-1"])
        result = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()
        assert result["label"] == "meet"
        assert result["labels"] == [{"label": "meet", "score": 0.75}, {"label": "part", "score": 0.25}]
        assert (result["ranks"], result["batch"]) == (2, 3)
        (segment,) = result["segments"]
        assert (segment["node"], segment["model"], segment["frames"], segment["quality"]) == (
            "sky-1",
            "actions",
            8,
            0.9,
        )
        assert segment["up_bytes"] > 1000
        (header,) = w.nodes[0].segments
        assert (header.info.frame_count, header.info.source_width, header.info.source_height) == (8, 96, 64)
        assert header.task.job_id == task_id
        (placed,) = w.scheduler.placed
        assert (placed.profile.frame_count, placed.profile.width, placed.profile.fps) == (8, 96, 10)
        assert list(placed.profile.complexity) == [0.5]
        assert isinstance(w.store, MemoryStore)
        await w.eventually(lambda: len(w.store._outcomes) == 1)  # type: ignore[attr-defined]
        (outcome,) = w.store._outcomes
        assert (outcome.status, outcome.quality, outcome.worker.frames) == (OutcomeStatus.OK, 0.9, 8)
        for path in ("annotated.mp4", "contact-sheet.png", "result?format=mot"):
            missing = await w.client.get(f"/v1/tasks/{task_id}/{path}")
            assert (missing.status_code, "labels, not boxes" in missing.text) == (404, True)


async def test_a_caller_that_waits_gets_the_labels_at_once(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n")
    async with world(tmp_path / "s", node) as w:
        response = await upload(w, clip, wait=20.0, frames="3")
        assert response.status_code == 200
        assert response.json()["label"] == "meet"
        assert response.headers["location"] == f"/v1/tasks/{response.json()['task_id']}"
        assert node.segments[0].info.frame_count == 3
        node.hold = asyncio.Event()
        later = await upload(w, clip, wait=0.2)
        assert later.status_code == 202
        node.hold.set()
        assert (await ended(w, later.json()["task_id"]))["state"] == "done"
        for bad in ({"wait": "61"}, {"wait": "soon"}):
            assert (await w.client.post(CLASSIFY, params=bad, json={"url": "file:///x"})).status_code == 400
        assert (await upload(w, clip, frames="65")).status_code == 400


def requests_in_progress() -> list[str]:
    """The server tasks that answer HTTP requests now."""
    return [name for name in (repr(task.get_coro()) for task in asyncio.all_tasks()) if "run_asgi" in name]


async def test_a_caller_that_stops_waiting_is_forgotten_and_its_job_goes_on(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node) as w:
        asking = asyncio.create_task(upload(w, clip, wait=60.0))
        await w.eventually(lambda: node.running == 1)
        assert len(requests_in_progress()) == 1
        asking.cancel()
        await asyncio.wait([asking])
        assert isinstance(w.store, MemoryStore)
        (task_id,) = w.store._tasks
        await w.eventually(lambda: not requests_in_progress())  # the gateway polls no more for this caller
        assert node.hold
        node.hold.set()
        assert (await ended(w, task_id))["state"] == "done"


async def test_a_clip_shorter_than_the_sample_is_sent_whole(tmp_path: Path) -> None:
    short = make_clip(tmp_path / "short.mp4", frames=3)
    async with world(tmp_path / "s", FakeNode("n")) as w:
        assert (await upload(w, short, wait=20.0)).json()["segments"][0]["frames"] == 3


async def test_a_node_that_dies_is_replaced_and_the_clip_named_once(tmp_path: Path, clip: Path) -> None:
    dying = FakeNode("dying", fail_with=NodeUnavailable("gone"), fail_after=3)
    async with world(tmp_path / "s", dying, FakeNode("good")) as w:
        result = (await upload(w, clip, wait=20.0)).json()
        assert (result["label"], result["segments"][0]["node"]) == ("meet", "good")
        assert isinstance(w.store, MemoryStore)
        await w.eventually(lambda: len(w.store._outcomes) == 2)  # type: ignore[attr-defined]
        assert sorted((o.node_id, o.status.value) for o in w.store._outcomes) == [("dying", "failed"), ("good", "ok")]


async def test_the_deadline_counts_from_acceptance_and_its_error_is_the_answer(tmp_path: Path, clip: Path) -> None:
    node = FakeNode("n", hold=asyncio.Event())
    async with world(tmp_path / "s", node, gateway_jobs_in_flight=1) as w:
        first = await upload(w, clip, deadline_s="1.5")
        second = await upload(w, clip, wait=20.0, deadline_s="0.5")  # it starts when the first one has ended
        assert second.status_code == 504
        assert second.json()["error"]["code"] == "deadline_exceeded"
        assert (await ended(w, first.json()["task_id"]))["error"]["code"] == "deadline_exceeded"
        assert node.running == 0
        node.hold, node.fail_with = None, InvalidMedia("cannot decode")
        bad = await upload(w, clip, wait=20.0)
        assert (bad.status_code, bad.json()["error"]["code"]) == (422, "invalid_media")
        assert {placed.task.kind for placed in w.scheduler.placed} == {task_pb2.TASK_KIND_VIDEO_CLASSIFY}


async def test_what_the_load_generator_sends_is_taken_and_answered_as_it_reads_it(tmp_path: Path, clip: Path) -> None:
    arrival = Arrival(0.0, "r-1", TaskKind.VIDEO_CLASSIFY, camera="gate", clip="c", frames=20, fps=10.0, deadline_s=9.0)
    cuts = {ClipCut.of(arrival): await asyncio.to_thread(clip.read_bytes)}
    payload = payloads([arrival], cuts, seed=1)["r-1"]
    assert payload.path == CLASSIFY
    async with world(tmp_path / "s", FakeNode("n")) as w:
        answer = await w.client.post(payload.path, headers=payload.headers, content=b"".join(payload.parts))
        assert answer.status_code == 202
        task_id = answer.json()["task_id"]
        assert (await ended(w, task_id))["state"] == "done"
        (segment,) = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()["segments"]
        assert {"node", "tier", "policy", "frames", "queue_ms", "joules", "up_bytes", "energy_source"} <= set(segment)
        assert w.nodes[0].segments[0].task.deadline_s <= 9.0
