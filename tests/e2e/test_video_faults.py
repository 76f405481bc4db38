"""A node is killed while it has segments: they run again elsewhere; no frame is missing or returned twice."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.local_system import LocalSystem
from tests.fakes.clips import make_clip

pytestmark = pytest.mark.timeout(300)

FRAMES = 900
VICTIM = "edge-1"


def test_segments_of_a_killed_node_are_redone_elsewhere_and_no_frame_is_there_twice(
    skyshore: LocalSystem, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "long.mp4", frames=FRAMES)
    skyshore("up", "--detach", "--any-ports", "--emulated", timeout_s=200)
    victim = skyshore.processes()[VICTIM]
    with httpx.Client(base_url=skyshore.url, timeout=60.0) as client:
        files = {"file": (clip.name, clip.read_bytes(), "video/mp4")}
        # The model that the two edge nodes share: were the cloud's taken, nobody would be left for its segments.
        form = {"model": "ssd-mobilenet", "class": "batch"}
        task_id = client.post("/v1/video/detections", files=files, data=form).json()["task_id"]
        state: dict[str, Any] = {}
        stopped = killed = False
        with client.stream("GET", f"/v1/tasks/{task_id}/events", timeout=120.0) as events:
            for line in events.iter_lines():
                if not line.startswith("data: "):
                    continue
                state = json.loads(line.removeprefix("data: "))
                if not stopped and VICTIM in state["nodes"]:
                    # Frozen first, so that what it was given in the meantime surely never ends.
                    victim.send_signal(signal.SIGSTOP)
                    stopped = True
                elif stopped and not killed:
                    time.sleep(0.3)
                    victim.kill()
                    killed = True
        assert stopped
        assert killed
        assert (state["state"], state["error"]) == ("done", None)
        result = client.get(f"/v1/tasks/{task_id}/result").json()
        assert [frame["frame_index"] for frame in result["frames"]] == list(range(FRAMES))
        assert [segment["index"] for segment in result["segments"]] == list(range(len(result["segments"])))
        decisions = client.get("/v1/decisions", params={"limit": 1000}).json()["decisions"]
        placed = [entry["task_id"] for entry in decisions if entry["task_id"].startswith(task_id)]
        redone = {name for name in placed if placed.count(name) > 1}
        assert redone, "the victim had segments in its hands"
        index_of = {f"{task_id}-{segment['index']}": segment for segment in result["segments"]}
        assert all(index_of[name]["node"] != VICTIM for name in redone)
