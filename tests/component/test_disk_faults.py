"""A disk that fills up or fails: uploads are refused in time, with their own code, and nothing half-written stays."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.video import clip_work, disk_room
from skyshore.adapters.redis_store import RedisStore
from skyshore.runtime import disk
from tests.component.test_gateway_video import DETECT, ended, upload
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, world

MIB = 1024 * 1024


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def files(folder: Path, *names: str) -> list[str]:
    return sorted(path.name for name in names for path in (folder / name).iterdir())


async def padded(w: World, clip: Path, size_bytes: int, *, length: bool = True) -> httpx.Response:
    """Upload a clip with zeros behind it. Without `length` the request does not say how long it is."""
    data = (await asyncio.to_thread(clip.read_bytes)).ljust(size_bytes, b"\0")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="c.mp4"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 64 * 1024):
            yield body[start : start + 64 * 1024]

    headers = {"content-type": "multipart/form-data; boundary=b"}
    return await w.client.post(DETECT, content=body if length else chunks(), headers=headers)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert "/" not in answer.json()["error"]["message"], "no path of the server"


@pytest.mark.parametrize("length", [True, False], ids=["with its length", "without its length"])
async def test_an_upload_is_refused_before_the_disk_is_full(small_disk: Path, clip: Path, length: bool) -> None:
    async with world(small_disk, FakeNode("n"), gateway_disk_reserve_bytes=4 * MIB) as w:
        refused(await padded(w, clip, 5 * MIB, length=length), 507, "disk_full")
        assert files(small_disk, "uploads", "results", "accepted") == []
        accepted = await padded(w, clip, 2 * MIB, length=length)
        assert accepted.status_code == 202
        assert (await ended(w, accepted.json()["task_id"]))["state"] == "done"
        refused(await padded(w, clip, 3 * MIB, length=length), 507, "disk_full")
        free = os.statvfs(small_disk)
        assert free.f_bavail * free.f_frsize >= 2 * MIB, "what is in the reserve is free"
        for name in files(small_disk, "uploads"):
            (small_disk / "uploads" / name).unlink()
        assert (await padded(w, clip, 3 * MIB, length=length)).status_code == 202


async def test_the_length_is_believed_before_a_byte_is_read(small_disk: Path) -> None:
    async with world(small_disk, FakeNode("n"), gateway_disk_reserve_bytes=MIB) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        writer.write(
            b"POST /v1/video/detections HTTP/1.1\r\nhost: x\r\ncontent-length: 500000000\r\n"
            b"content-type: multipart/form-data; boundary=b\r\n\r\n"
        )
        async with asyncio.timeout(60):
            assert b" 507 " in await reader.readline()
        writer.close()


async def test_a_disk_that_is_full_although_there_was_room(small_disk: Path, clip: Path) -> None:
    """Somebody else fills the disk. Chats go on; when there is room again, clips do, too."""
    async with world(small_disk, FakeNode("n"), gateway_disk_reserve_bytes=0) as w:
        stuffing = small_disk / "stuffing"
        with pytest.raises(OSError), stuffing.open("wb") as file:
            file.write(bytes(9 * MIB))
        for size_bytes in (0, MIB):
            refused(await padded(w, clip, size_bytes), 507, "disk_full")
        assert files(small_disk, "uploads", "results", "accepted") == []
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "tide"}]}
        assert (await w.client.post("/v1/chat/completions", json=chat)).status_code == 200
        stuffing.unlink()
        assert (await ended(w, (await upload(w, clip)).json()["task_id"]))["state"] == "done"


async def test_a_result_waits_for_room(small_disk: Path, clip: Path) -> None:
    hold = asyncio.Event()
    async with world(small_disk, FakeNode("n", hold=hold), gateway_disk_reserve_bytes=0) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        await w.eventually(lambda: w.nodes[0].running > 0)
        stuffing = small_disk / "stuffing"
        with pytest.raises(OSError), stuffing.open("wb") as file:
            file.write(bytes(9 * MIB))
        hold.set()
        await w.eventually(lambda: w.nodes[0].running == 0)
        assert (await w.client.get(f"/v1/tasks/{task_id}")).json()["state"] == "running"
        assert [name for name in files(small_disk, "results") if "partial" in name] == []
        stuffing.unlink()
        assert (await ended(w, task_id))["state"] == "done"
        with pytest.raises(OSError), stuffing.open("wb") as file:
            file.write(bytes(9 * MIB))
        before = files(small_disk, "results")
        for name in ("annotated.mp4", "contact-sheet.png"):
            refused(await w.client.get(f"/v1/tasks/{task_id}/{name}"), 507, "disk_full")
        assert files(small_disk, "results") == before
        stuffing.unlink()
        for name in ("annotated.mp4", "contact-sheet.png"):
            assert (await w.client.get(f"/v1/tasks/{task_id}/{name}")).status_code == 200


async def test_one_caller_cannot_take_all_the_room(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = iter("aaab")
    monkeypatch.setattr("gateway.routes.video._caller", lambda request: next(callers))
    monkeypatch.setattr(disk_room, "SCAN_EVERY_S", 0.0)
    async with world(tmp_path / "s", FakeNode("n"), gateway_caller_disk_bytes=5 * MIB) as w:
        first = (await padded(w, clip, 2 * MIB)).json()["task_id"]
        assert (await padded(w, clip, 2 * MIB)).status_code == 202
        refused(await padded(w, clip, 2 * MIB, length=False), 507, "quota_exceeded")
        assert (await padded(w, clip, 2 * MIB)).status_code == 202, "another caller has room"
        assert (await ended(w, first))["state"] == "done"
    callers = iter("ab")
    async with world(
        tmp_path / "s", FakeNode("n"), gateway_caller_disk_bytes=5 * MIB
    ) as w:  # a restart forgets nothing
        refused(await padded(w, clip, 2 * MIB), 507, "quota_exceeded")
        assert (await padded(w, clip, 2 * MIB)).status_code == 202


async def test_all_files_together_are_bounded(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_disk_bytes=3 * MIB) as w:
        answers = await asyncio.gather(*(padded(w, clip, 2 * MIB, length=False) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) in ([202, 507, 507, 507], [507, 507, 507, 507])
        assert len(files(tmp_path / "s", "uploads")) <= 1


async def test_too_many_uploads_at_once_are_told_to_come_again(tmp_path: Path, clip: Path) -> None:
    async with world(tmp_path / "s", FakeNode("n"), gateway_uploads_in_flight=3) as w:
        ready, answers = 0, []
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            nonlocal ready
            yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            ready += 1
            await go.wait()
            yield clip.read_bytes() + b"\r\n--b--\r\n"  # noqa: ASYNC240

        headers = {"content-type": "multipart/form-data; boundary=b"}
        async with asyncio.TaskGroup() as group:
            sending = [group.create_task(w.client.post(DETECT, content=slow(), headers=headers)) for _ in range(3)]
            await w.eventually(lambda: ready == 3)

            async def busy() -> bool:
                answers.append(await upload(w, clip))
                return answers[-1].status_code == 429

            await w.eventually(busy)
            go.set()
        refused(answers[-1], 429, "queue_full")
        assert "uploads are in progress" in answers[-1].json()["error"]["message"]
        assert [task.result().status_code for task in sending] == [202] * 3
        assert (await upload(w, clip)).status_code == 202


ERRORS = {
    errno.ENOSPC: (507, "disk_full"),
    errno.EDQUOT: (507, "disk_full"),
    errno.EIO: (503, "disk_unavailable"),
    errno.EACCES: (503, "disk_unavailable"),
    errno.EROFS: (503, "disk_unavailable"),
    errno.EMFILE: (503, "disk_unavailable"),
}


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("where", ["open", "sync", "folders", "accepted"])
async def test_each_error_of_the_disk_has_its_code(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/secret/path")

    real_open = Path.open

    def open_but_no_upload(path: Path, *arguments: Any, **options: Any) -> Any:
        return fail() if path.parent.name == "uploads" else real_open(path, *arguments, **options)

    async with world(tmp_path / "s", FakeNode("n")) as w:
        with monkeypatch.context() as broken:
            if where == "open":
                broken.setattr(Path, "open", open_but_no_upload)
            elif where == "sync":
                broken.setattr(os, "fsync", fail)
            elif where == "folders":
                broken.setattr(Path, "mkdir", fail)
            else:
                broken.setattr("gateway.video.accepted.write_atomically", fail)
            refused(await upload(w, clip), *ERRORS[number])
        assert files(tmp_path / "s", "uploads", "results", "accepted") == []
        assert (await ended(w, (await upload(w, clip)).json()["task_id"]))["state"] == "done"


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("drawing", [("annotate", "annotated.mp4"), ("contact_sheet", "contact-sheet.png")])
async def test_each_error_of_a_drawing_has_its_code(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, number: int, drawing: tuple[str, str]
) -> None:
    made, name = drawing

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/secret/path")

    async with world(tmp_path / "s", FakeNode("n")) as w:
        task_id = (await upload(w, clip)).json()["task_id"]
        await ended(w, task_id)
        with monkeypatch.context() as broken:
            broken.setattr(clip_work, made, fail)
            refused(await w.client.get(f"/v1/tasks/{task_id}/{name}"), *ERRORS[number])
        assert (await w.client.get(f"/v1/tasks/{task_id}/{name}")).status_code == 200


async def test_folders_that_were_deleted_are_made_again(tmp_path: Path, clip: Path) -> None:
    import shutil

    async with world(tmp_path / "s", FakeNode("n")) as w:
        await asyncio.to_thread(shutil.rmtree, tmp_path / "s")
        assert (await ended(w, (await upload(w, clip)).json()["task_id"]))["state"] == "done"


@pytest.mark.parametrize("lost", ["the stream", "everything", "the record"])
async def test_an_accepted_clip_outlives_what_the_store_loses(
    tmp_path: Path, clip: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    import redis.asyncio

    monkeypatch.setattr("gateway.video.accepted.SETTLED_S", 0.0)
    monkeypatch.setattr("gateway.video.accepted.EVERY_S", 0.2)
    store = RedisStore(valkey_url)
    node = FakeNode("n", hold=asyncio.Event())
    forget: dict[str, Callable[[redis.asyncio.Redis, str], Any]] = {
        "the stream": lambda client, _: client.delete("skyshore:jobs"),
        "everything": lambda client, _: client.flushall(),
        "the record": lambda client, task_id: client.delete(f"skyshore:task:{task_id}"),
    }
    async with (
        world(tmp_path / "s", node, store=store, gateway_job_idle_s=1.0, gateway_jobs_in_flight=1) as w,
        redis.asyncio.Redis.from_url(valkey_url) as client,
    ):
        task_ids = [(await upload(w, clip)).json()["task_id"] for _ in range(2)]
        await w.eventually(lambda: node.running > 0)
        for task_id in task_ids:
            await forget[lost](client, task_id)
        assert node.hold
        node.hold.set()

        async def done() -> bool:
            answers = [await w.client.get(f"/v1/tasks/{task_id}") for task_id in task_ids]
            return [answer.json().get("state") for answer in answers] == ["done", "done"]

        await w.eventually(done)
        for task_id in task_ids:
            frames = (await w.client.get(f"/v1/tasks/{task_id}/result")).json()["frames"]
            assert [frame["frame_index"] for frame in frames] == list(range(20))
        await w.eventually(lambda: files(tmp_path / "s", "accepted") == [])
    await store.close()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result.json"
    disk.write_atomically(target, b"old")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        disk.write_atomically(target, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("result.json", b"old")]
