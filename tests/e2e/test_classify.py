"""Clips through every process to a model sharded over real ranks, and what callers see when ranks die or hang."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from benchmarks.gateway_targets import CHAT, Processes, processes, start_own_system
from skyshore.workload.synthetic.actions import ACTIONS
from tests.fakes.clips import make_action_clip

pytestmark = pytest.mark.timeout(180)

RANKS = 2
STALL_S = 8.0
NODE = {
    "SKYSHORE_NODE_ENGINE": "onnx",
    "SKYSHORE_NODE_MODELS": "space-time-actions",
    "SKYSHORE_NODE_RANKS": str(RANKS),
    "SKYSHORE_NODE_RANK_STALL_S": str(STALL_S),
    "SKYSHORE_NODE_THREADS": "1",
}


@dataclass
class System:
    """All processes, one cloud node among them, and a client for the gateway."""

    group: Processes
    client: httpx.Client
    folder: Path

    def classify(self, action: str, seed: int = 1, wait: float = 60.0, **fields: Any) -> httpx.Response:
        """Upload the clip of an action and wait for its label; gentle encodings only, so that the label is right."""
        clip = make_action_clip(self.folder / f"{action}-{seed}.mp4", action, seed)
        files = {"file": (clip.name, clip.read_bytes(), "video/mp4")}
        form = {"min_quality": "0.95", **fields}
        return self.client.post("/v1/video/classifications", params={"wait": wait}, files=files, data=form)

    def ranks(self) -> list[psutil.Process]:
        """The rank processes: what the node's fork server started."""
        node = psutil.Process(self.group.started["node"].pid)
        return [rank for server in node.children() for rank in server.children()]

    def running(self) -> int:
        """Tasks on the node, as it last said."""
        return int(self.client.get("/v1/nodes").json()["nodes"][0]["status"]["running"])


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with processes() as group:
        gateway, _ = start_own_system(group, NODE, "cloud_node")
        with httpx.Client(base_url=gateway.url.removesuffix(CHAT), timeout=90.0) as client:
            yield System(group, client, tmp_path_factory.mktemp("clips"))


def until(condition: Any, within_s: float = 100.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        time.sleep(0.05)


def test_each_action_is_named(system: System) -> None:
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(system.classify, ACTIONS))
    assert [answer.status_code for answer in answers] == [200] * len(ACTIONS)
    right = [answer.json()["label"] == action for answer, action in zip(answers, ACTIONS, strict=True)]
    assert sum(right) >= len(ACTIONS) - 1
    for answer in answers:
        (segment,) = answer.json()["segments"]
        assert (segment["model"], segment["frames"]) == ("space-time-actions", 8)
        assert segment["quality"] >= 0.95
        assert segment["compute_ms"] > 0
        assert segment["joules"] > 0
        assert segment["energy_source"].startswith(("measured:", "modelled:"))
        assert 1 <= answer.json()["ranks"] <= RANKS


def test_ranks_killed_under_a_request_are_rebuilt_and_the_request_is_answered(system: System) -> None:
    ranks = system.ranks()
    assert len(ranks) == RANKS
    for rank in ranks:
        rank.send_signal(signal.SIGSTOP)  # so that the request is surely under way when they die
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(system.classify, "drive_left", 2)
        until(lambda: system.running() == 1)
        for rank in ranks:
            rank.kill()
        answer = waiting.result()
    assert answer.status_code == 200
    assert answer.json()["label"] == "drive_left"
    assert {rank.pid for rank in system.ranks()}.isdisjoint(rank.pid for rank in ranks)


def test_a_request_to_stalled_ranks_fails_within_its_deadline_and_the_next_one_is_answered(system: System) -> None:
    stuck = system.ranks()
    for rank in stuck:
        rank.send_signal(signal.SIGSTOP)
    began_s = time.monotonic()
    late = system.classify("drive_right", 3, deadline_s="1.5")
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - began_s < 30.0, "its deadline, not the minute that it would have waited"
    answer = system.classify("drive_right", 3)  # waits until the stalled group counts as stuck and was rebuilt
    assert answer.status_code == 200
    assert answer.json()["label"] == "drive_right"
    until(lambda: not any(rank.is_running() for rank in stuck))
