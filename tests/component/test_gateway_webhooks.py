"""Webhooks of clips: a real receiver that is slow, wrong or away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from gateway.video import webhook_rules, webhooks
from gateway.video.webhooks import Webhooks
from skyshore.domain.errors import InvalidMedia, StoreBusy
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, serving_http, world

DETECT = "/v1/video/detections"
ON: dict[str, Any] = {"gateway_webhook_hosts": ("127.0.0.1",), "gateway_webhook_secret": "key"}


@dataclass
class Receiver:
    """Answers with each of `statuses`, then with 200."""

    statuses: list[int] = field(default_factory=list)
    port: int = 0
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?from=skyshore"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.got.append((f"{scope['path']}?{scope['query_string'].decode()}", headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        location = [(b"location", b"/elsewhere")] if 300 <= status < 400 else []
        await send({"type": "http.response.start", "status": status, "headers": location})
        await send({"type": "http.response.body", "body": b"thanks"})


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(statuses))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        receiver.port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(receiver, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield receiver
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", frames=10)


@pytest.fixture(autouse=True)
def with_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_rules, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(webhook_rules, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(webhooks, "SCAN_EVERY_S", 0.05)


async def upload(w: World, clip: Path, url: str) -> httpx.Response:
    files = {"file": (clip.name, await asyncio.to_thread(clip.read_bytes), "video/mp4")}
    return await w.client.post(DETECT, files=files, data={"webhook": url})


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "s" / "webhooks").glob("*"))


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_the_end_of_a_clip_is_posted_once_and_signed(tmp_path: Path, clip: Path, end: str) -> None:
    node = FakeNode("n")
    node.fail_with = InvalidMedia("cannot decode") if end == "failed" else None
    node.hold = asyncio.Event() if end == "cancelled" else None
    async with receiving() as receiver, world(tmp_path / "s", node, **ON) as w:
        task_id = (await upload(w, clip, receiver.url)).json()["task_id"]
        if end == "cancelled":
            await w.eventually(lambda: node.running)
            assert not receiver.got
            await w.client.delete(f"/v1/tasks/{task_id}")
        await w.eventually(lambda: receiver.got)
        ((path, headers, body),) = receiver.got
        assert path == "/hook?from=skyshore"
        assert json.loads(body) == (await w.client.get(f"/v1/tasks/{task_id}")).json()
        assert json.loads(body)["state"] == end
        signed = headers["x-skyshore-timestamp"].encode() + b"." + body
        assert headers["x-skyshore-signature"] == "sha256=" + hmac.new(b"key", signed, hashlib.sha256).hexdigest()
        assert headers["host"] == f"127.0.0.1:{receiver.port}"
        await w.eventually(lambda: not kept(tmp_path))
        assert len(receiver.got) == 1


async def test_failures_are_tried_again_and_redirects_are_failures(tmp_path: Path, clip: Path) -> None:
    async with receiving(500, 404, 302, 429) as receiver, world(tmp_path / "s", FakeNode("n"), **ON) as w:
        await upload(w, clip, receiver.url)
        await w.eventually(lambda: len(receiver.got) == 5)
        await w.eventually(lambda: not kept(tmp_path))
        assert {path for path, _, _ in receiver.got} == {"/hook?from=skyshore"}, "no redirect is followed"


async def test_a_receiver_that_is_away_is_given_up_after_the_last_try(tmp_path: Path, clip: Path) -> None:
    async with receiving() as gone:
        pass
    async with receiving(*[500] * 100) as receiver, world(tmp_path / "s", FakeNode("n"), **ON) as w:
        for url in (gone.url, receiver.url):
            assert (await upload(w, clip, url)).status_code == 202
        await w.eventually(lambda: not kept(tmp_path))
        assert len(receiver.got) == webhook_rules.TRIES
        assert 'skyshore_webhooks_total{result="given_up"}' in (await w.client.get("/metrics")).text


async def test_a_webhook_survives_its_gateway(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks.Webhooks, "ended", lambda *_: None)  # it dies before it sends
    async with receiving() as receiver, world(tmp_path / "s", FakeNode("n"), **ON) as w:
        task_id = (await upload(w, clip, receiver.url)).json()["task_id"]

        async def done() -> bool:
            return bool((await w.client.get(f"/v1/tasks/{task_id}")).json()["state"] == "done")

        await w.eventually(done)
        monkeypatch.undo()
        assert not receiver.got
        (file,) = kept(tmp_path)
        await asyncio.to_thread(os.utime, file, (1.0, 1.0))
        async with serving_http(w.deps):
            await w.eventually(lambda: receiver.got)
            await w.eventually(lambda: not kept(tmp_path))


async def test_what_is_not_allowed_is_refused_and_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    async with receiving() as receiver:
        async with world(tmp_path / "s", FakeNode("n")) as w:
            off = await upload(w, clip, receiver.url)
            assert (off.status_code, off.json()["error"]["param"]) == (403, "webhook")
            assert "sends no webhooks" in off.json()["error"]["message"]
        async with world(tmp_path / "s", FakeNode("n"), **ON, gateway_caller_jobs=1) as w:
            w.nodes[0].hold = asyncio.Event()
            assert (await upload(w, clip, "http://169.254.169.254/")).status_code == 403
            assert (await upload(w, clip, "gopher://127.0.0.1/")).status_code == 400
            assert kept(tmp_path) == []
            assert (await upload(w, clip, receiver.url)).status_code == 202
            assert (await upload(w, clip, receiver.url)).status_code == 429
            assert len(kept(tmp_path)) == 1


async def test_a_name_that_leads_to_a_private_address_gets_nothing(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_rules, "TRIES", 2)
    only_named = {**ON, "gateway_webhook_hosts": ("localhost",)}
    async with receiving() as receiver, world(tmp_path / "s", FakeNode("n"), **only_named) as w:
        assert (await upload(w, clip, f"http://localhost:{receiver.port}/")).status_code == 202
        await w.eventually(lambda: not kept(tmp_path))
        assert receiver.got == []
    both = {**ON, "gateway_webhook_hosts": ("localhost", "127.0.0.0/8")}
    async with receiving() as receiver, world(tmp_path / "s", FakeNode("n"), **both) as w:
        assert (await upload(w, clip, f"http://localhost:{receiver.port}/")).status_code == 202
        await w.eventually(lambda: receiver.got)
        assert receiver.got[0][1]["host"] == f"localhost:{receiver.port}"


async def test_a_busy_store_and_a_damaged_file_stop_nothing(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode("n")
    node.hold = asyncio.Event()
    async with receiving() as receiver, world(tmp_path / "s", node, **ON) as w:
        await upload(w, clip, receiver.url)
        await w.eventually(lambda: node.running)
        damaged = tmp_path / "s" / "webhooks" / "damaged.json"
        await asyncio.to_thread(damaged.write_bytes, b"{")
        await asyncio.to_thread(os.utime, damaged, (1.0, 1.0))
        await w.eventually(lambda: not damaged.exists())
        asked, real = 0, Webhooks._send_once

        async def busy(self: Webhooks, *arguments: Any) -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                (file,) = kept(tmp_path)
                await asyncio.to_thread(os.utime, file, (1.0, 1.0))
                raise StoreBusy("too many requests use the state store")
            await real(self, *arguments)

        monkeypatch.setattr(Webhooks, "_send_once", busy)
        node.hold.set()
        await w.eventually(lambda: receiver.got)
        assert asked > 1
