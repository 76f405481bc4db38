"""Each process of a running system is killed: it comes back by itself, chats work again, an accepted clip is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.local_system import LocalSystem
from tests.fakes.clips import make_clip

pytestmark = pytest.mark.timeout(400)

FRAMES = 50
RECOVERY_S = 150.0
"""Far more than a restart takes: it only ends a test that would hang."""


def until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + RECOVERY_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {RECOVERY_S:g} s: {what}"
        time.sleep(0.2)


def got(client: httpx.Client, method: str, path: str, **how: Any) -> httpx.Response | None:
    """The answer; None while the gateway is away."""
    try:
        return client.request(method, path, **how)
    except httpx.TransportError:
        return None


def chats(client: httpx.Client) -> bool:
    body = {"model": "auto", "prompt": "The sea is", "max_tokens": 4}
    answer = got(client, "POST", "/v1/completions", json=body)
    return answer is not None and answer.status_code == 200


@pytest.mark.parametrize("victim", ["valkey", "profiler", "scheduler", "edge-1", "edge-2", "cloud-1", "gateway"])
def test_a_killed_process_comes_back_and_nothing_accepted_is_lost(
    emulated: LocalSystem, victim: str, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=FRAMES)
    before = emulated.processes()
    with httpx.Client(base_url=emulated.url, timeout=30.0, trust_env=False) as client:
        until(lambda: chats(client), "the system answers")
        files = {"file": (clip.name, clip.read_bytes(), "video/mp4")}
        accepted = client.post("/v1/video/detections", files=files, data={"class": "batch"})
        assert accepted.status_code == 202
        before[victim].kill()

        def back() -> bool:
            shown = {entry["name"]: entry for entry in emulated.json("status", check=False)["processes"]}[victim]
            return bool(shown["health"] == "serving" and shown["restarts"] > 0)

        until(back, f"{victim} serves again")
        until(lambda: chats(client), "chats work again")
        record: dict[str, Any] = {}

        def ended() -> bool:
            answer = got(client, "GET", f"/v1/tasks/{accepted.json()['task_id']}")
            record.update(answer.json() if answer is not None and answer.status_code == 200 else {})
            return record.get("state") in ("done", "failed")

        until(ended, "the clip ends")
        assert (record["state"], record.get("error")) == ("done", None)
        result = client.get(f"/v1/tasks/{accepted.json()['task_id']}/result").json()
        assert [frame["frame_index"] for frame in result["frames"]] == list(range(FRAMES))
    after = emulated.processes()
    unhurt = [name for name in before if name != victim]
    assert [name for name in unhurt if before[name].pid != after[name].pid] == [], "the others were not restarted"
