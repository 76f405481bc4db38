"""The system as containers, for tests: started from the compose files as a person would, then harmed and healed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
NODES = ("edge-1", "edge-2", "cloud-1")
UP_S = 900
"""Cold, on a busy machine: build every image, start every model."""
DEADLINE_S = 120.0
"""Of what the tests ask for. Long, because the machine may be slow; nothing waits for it."""


def why_no_compose() -> str:
    """Why compose files cannot even be read here; empty when they can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    return "docker has no compose plugin" if _run(["docker", "compose", "version"]).returncode else ""


def why_no_engine() -> str:
    """Why containers cannot be had here; empty when they can."""
    if why := why_no_compose():
        return why
    answer = _run(["docker", "info", "--format", "{{.ServerVersion}}"])
    said = answer.stderr.strip().splitlines() or ["nothing"]
    return f"no container engine answers; docker says: {said[-1]}" if answer.returncode else ""


def host_environment() -> dict[str, str]:
    """What this host can spare the build: a folder of wheels that pip knows of, and torch if one lies there."""
    wheels = os.environ.get("SKYSHORE_WHEELS") or os.environ.get("PIP_FIND_LINKS", "")
    if not Path(wheels or "/nowhere").is_dir():
        return {}
    torch = {"SKYSHORE_CLOUD_EXTRA": "cloud"} if list(Path(wheels).glob("torch-*.whl")) else {}
    return {"SKYSHORE_WHEELS": wheels} | torch


def call(
    url: str, body: object = None, method: str = "", kind: str = "application/json", deadline_s: float = 10
) -> tuple[Any, dict[str, str]]:
    """JSON (or bytes of some other `kind`) in, JSON and headers out. Raises HTTPError for a refusal."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": kind, "x-skyshore-deadline-s": str(deadline_s)}
    request = urllib.request.Request(url, data, headers, method=method or None)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=deadline_s) as answer:
        return json.load(answer), {name.lower(): value for name, value in answer.headers.items()}


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait; returns the seconds it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began_s


@dataclass
class Containers:
    """One compose project."""

    project: str
    layers: tuple[str, ...] = ("test",)
    environment: dict[str, str] = field(default_factory=dict)
    _services: list[str] = field(default_factory=list, init=False)

    def compose(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run docker compose on this project's files."""
        files = [COMPOSE / "compose.yaml", *(COMPOSE / f"compose.{layer}.yaml" for layer in self.layers)]
        command = ["docker", "compose", "-p", self.project, *(part for file in files for part in ("-f", str(file)))]
        environment = {**os.environ, **host_environment(), "SKYSHORE_PORT": "0", **self.environment}
        done = _run([*command, *arguments], environment, timeout_s)
        if check and done.returncode:
            raise AssertionError(f"docker compose {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def up(self, *services: str) -> None:
        """Build and start all or some; returns once every health check passes."""
        done = self.compose("up", "-d", "--build", "--wait", *services, timeout_s=UP_S, check=False)
        if done.returncode:
            raise AssertionError(f"the system did not come up\n{done.stderr[-3000:]}\n{self.logs()[-6000:]}")

    def down(self) -> None:
        """Stop and remove everything, volumes too."""
        self.compose("--profile", "*", "down", "-v", "--remove-orphans")

    @property
    def url(self) -> str:
        """The gateway's published address; asked each time because a start may change it."""
        return f"http://{self.compose('port', 'gateway', '8080').stdout.strip()}"

    def services(self) -> list[str]:
        """Services that `up` starts."""
        if not self._services:
            self._services = self.compose("config", "--services").stdout.split()
        return self._services

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """All the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", self.container(service)).stdout)
        return found[0]

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run docker."""
        done = _run(["docker", *arguments])
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def logs(self, *services: str) -> str:
        """What the processes said, all of it."""
        return self.compose("logs", "--no-color", *services).stdout

    @contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        """Take a container off the network without a word to anybody, and put it back."""
        network = f"{self.project}_default"
        self.docker("network", "disconnect", network, self.container(service))
        try:
            yield
        finally:
            self.docker("network", "connect", "--alias", service, network, self.container(service))

    def get(self, path: str) -> tuple[int, Any]:
        """GET JSON from the gateway; status 0 when it does not answer."""
        try:
            return 200, call(f"{self.url}{path}")[0]
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")
        except OSError:
            return 0, {}

    def place_by(self, policy: str) -> None:
        """Put a policy in force."""
        assert call(f"{self.url}/v1/policy", {"policy": policy}, "PUT")[0]["policy"] == policy

    def complete(self, tokens: int) -> dict[str, str]:
        """Ask for so many tokens, which is always possible in time; returns the headers of the answer."""
        body = {"model": "auto", "prompt": "The sea is", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        answer, headers = call(f"{self.url}/v1/completions", body, deadline_s=DEADLINE_S)
        assert answer["usage"]["completion_tokens"] == tokens
        return headers

    def nodes(self) -> dict[str, str]:
        """Engine of every live node."""
        _, body = self.get("/v1/nodes")
        return {node["node_id"]: node["engine"] for node in body.get("nodes", ())}

    def running(self) -> set[str]:
        """Containers of this project that run."""
        names = self.docker(
            "ps", "--filter", f"label=com.docker.compose.project={self.project}", "--format", "{{.Names}}"
        )
        return set(names.stdout.split())

    def heal(self) -> None:
        """Everything runs and every node has its lease; starts only what does not run."""
        if not self.running() >= {self.container(service) for service in self.services()}:
            self.compose("up", "-d", "--wait", timeout_s=UP_S)
        until(lambda: self.get("/ready")[0] == 200, 180, "ready")
        until(lambda: set(self.nodes()) >= set(NODES), 180, "every node registered")


def _run(
    command: list[str], environment: dict[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False)
