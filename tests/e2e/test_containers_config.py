"""What can be said of the compose files, Dockerfiles and scripts without starting a container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic_settings import BaseSettings

from gateway.settings import GatewaySettings
from scripts.containers_requirements import requirements, swapped
from services.links.settings import LinksSettings
from services.profiler.settings import ProfilerSettings
from services.scheduler.settings import SchedulerSettings
from services.spans.settings import SpansSettings
from skyshore.runtime import telemetry
from skyshore.worker.settings import NodeSettings
from tests.e2e.containers_system import COMPOSE, ROOT, why_no_compose

LAYERS = ("gpu", "links", "observability", "test")
COMBINATIONS = list(chain.from_iterable(combinations(LAYERS, count) for count in range(len(LAYERS) + 1)))
SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "edge_node": NodeSettings,
    "cloud_node": NodeSettings,
    "services.links": LinksSettings,
    "services.profiler": ProfilerSettings,
    "services.scheduler": SchedulerSettings,
    "services.spans": SpansSettings,
}

needs_compose = pytest.mark.skipif(bool(why_no_compose()), reason=f"no docker compose: {why_no_compose()}")


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKYSHORE_")}
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


def config(layers: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    files = ["compose.yaml", *(f"compose.{layer}.yaml" for layer in layers)]
    return compose(*(part for file in files for part in ("-f", str(COMPOSE / file))), *arguments)


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    done = config(LAYERS, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@needs_compose
@pytest.mark.parametrize("layers", COMBINATIONS, ids="+".join)
def test_every_combination_of_layers_is_clean(layers: tuple[str, ...]) -> None:
    done = config(layers, "config", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_compose
def test_the_repository_root_offers_the_same_system() -> None:
    as_json = ("config", "--format", "json")
    root, here = (json.loads(done.stdout) for done in (compose(*as_json), config((), *as_json)))
    assert {key: root[key] for key in root} == {key: here[key] for key in root}
    assert root["name"] == "skyshore"


def variables(settings: type[BaseSettings]) -> set[str]:
    """Environment variables that a process reads into its settings."""
    prefix = settings.model_config["env_prefix"]
    return {str(about.validation_alias or f"{prefix}{name}".upper()) for name, about in settings.model_fields.items()}


@needs_compose
def test_every_variable_set_is_one_that_the_process_reads(everything: dict[str, Any]) -> None:
    read = {module: variables(settings) for module, settings in SETTINGS.items()}
    ours = {name: s for name, s in everything["services"].items() if "SKYSHORE_REDIS_URL" in s.get("environment", {})}
    assert {service["command"][-1] for service in ours.values()} == set(SETTINGS), "each gets the address of the store"
    for name, service in ours.items():
        said = {variable for variable in service["environment"] if variable.startswith("SKYSHORE_")}
        # The catalogue reads this one itself.
        assert said - {"SKYSHORE_MODELS"} - read[service["command"][-1]] == set(), name


@needs_compose
def test_every_published_port_is_for_this_host_only(everything: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in everything["services"].items() if "ports" in service}
    assert {port.get("host_ip") for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert set(published) >= {"gateway", "links", "grafana", "jaeger", "prometheus"}


@needs_compose
def test_every_service_is_locked_down(everything: dict[str, Any]) -> None:
    for name, service in everything["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["stop_grace_period"] == "5s", name
        assert not service.get("privileged"), name
        tag = service["image"].rpartition(":")[2]
        assert tag not in ("", "latest"), name
        assert "@" not in service["image"], name


@needs_compose
def test_every_image_of_ours_is_built_once_and_none_is_looked_for_in_a_registry(everything: dict[str, Any]) -> None:
    ours = [service for service in everything["services"].values() if service["image"].startswith("skyshore/")]
    built = [service["image"] for service in ours if "build" in service]
    assert len(built) == len(set(built))
    assert {service["image"] for service in ours} == set(built)
    assert all(service["pull_policy"] == "never" for service in ours if "build" not in service)


@needs_compose
def test_nodes_are_unequal_and_the_cloud_is_the_largest(everything: dict[str, Any]) -> None:
    nodes = [everything["services"][name]["deploy"]["resources"]["limits"] for name in ("edge-2", "edge-1", "cloud-1")]
    for limits in ([float(node["cpus"]) for node in nodes], [int(node["memory"]) for node in nodes]):
        assert limits == sorted(set(limits))


@needs_compose
def test_the_gpu_layer_asks_for_gpus_on_the_cloud_node_alone(everything: dict[str, Any]) -> None:
    services = everything["services"]
    with_gpu = {name for name, service in services.items() if "devices" in str(service.get("deploy", {}))}
    assert with_gpu == {"cloud-1"}
    assert services["cloud-1"]["build"]["args"]["ACCELERATOR"] == "gpu"


@needs_compose
def test_every_node_is_reached_through_its_own_link(everything: dict[str, Any]) -> None:
    links = {link["name"]: link for link in json.loads((COMPOSE / "links.json").read_text())}
    services = everything["services"]
    nodes = {name: s["environment"] for name, s in services.items() if "SKYSHORE_NODE_ID" in s.get("environment", {})}
    assert set(links) == set(nodes)
    for name, environment in nodes.items():
        port = links[name]["listen"].rpartition(":")[2]
        assert environment["SKYSHORE_NODE_ADVERTISE"] == f"links:{port}"
        assert links[name]["target"] == f"{name}:{environment['SKYSHORE_NODE_LISTEN'].rpartition(':')[2]}"


@needs_compose
def test_prometheus_scrapes_the_ports_that_processes_serve(everything: dict[str, Any]) -> None:
    targets = re.findall(r'"([a-z0-9-]+):(\d+)"', (COMPOSE / "observability" / "prometheus.yaml").read_text())
    for name, port in targets:
        environment = everything["services"][name].get("environment", {})
        said = [value for key, value in environment.items() if key.endswith(("_METRICS_PORT", "_GATEWAY_LISTEN"))]
        assert name == "otel-collector" or [value.rpartition(":")[2] for value in said] == [port], name
    assert {name for name, _ in targets} >= {"gateway", "profiler", "scheduler", "edge-1", "edge-2", "cloud-1"}


def test_dashboards_show_metrics_that_exist() -> None:
    assert telemetry.REQUESTS  # importing it registers every metric
    known = {f"{metric.name}{end}" for metric in REGISTRY.collect() for end in ("", "_total", "_bucket")}
    dashboards = list((COMPOSE / "observability" / "grafana" / "dashboards").glob("*.json"))
    shown = {
        name
        for path in dashboards
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"skyshore_\w+", target["expr"])
    }
    assert len(shown) > 10
    assert shown - known == set()


def test_base_images_go_by_tag_and_images_run_as_an_ordinary_user() -> None:
    dockerfiles = list(COMPOSE.glob("*.Dockerfile"))
    assert len(dockerfiles) == 5
    for path in dockerfiles:
        text = path.read_text()
        stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
        bases = set(re.findall(r"^FROM (\S+)", text, re.M)) - stages
        assert bases <= {"python:3.11-slim-bookworm", "redis:7-bookworm"}, path.name
        assert not text.startswith("# syntax="), path.name
        assert "USER 10001:10001" in text.rpartition("\nFROM ")[2] or "\nUSER 10001:10001" in text, path.name


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("control", ["services.profiler.app", "services.scheduler.app", "services.spans.app"]),
        ("gateway", ["gateway.serve", "services.links.app"]),
        ("edge", ["edge_node.app", "cli.main", "cli.models"]),
        ("cloud", ["cloud_node.app"]),
    ],
)
def test_an_image_copies_every_package_of_ours_that_its_processes_import(
    tmp_path: Path, family: str, modules: list[str]
) -> None:
    copied = re.findall(r"^COPY ((?!--)\S+) \S+$", (COMPOSE / f"{family}.Dockerfile").read_text(), re.M)
    for name in set(copied) - {"pyproject.toml", "scripts/containers_requirements.py"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    # Without `site` no editable install adds the packages that were not copied.
    path = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", "-c", "import " + ", ".join(modules)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_image_is_asked_to_hold_only_what_its_process_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(*extras: str) -> set[str]:
        return {re.split(r"[\[<>=]", line)[0] for line in requirements(project, list(extras))}

    engines = {"torch", "onnxruntime", "onnx", "llguidance"}
    video = {"av", "opencv-python-headless"}
    assert names("profiler") & (engines | video) == set()
    assert names("gateway") & engines == set()
    assert names("gateway") >= video
    assert names("edge") & engines == {"onnxruntime", "llguidance"}
    assert names("cloud") >= engines


def test_a_swap_that_finds_nothing_is_an_error() -> None:
    assert swapped(["torch==2.13.*", "onnxruntime>=1"], {"onnxruntime": "onnxruntime-gpu>=1"}) == [
        "torch==2.13.*",
        "onnxruntime-gpu>=1",
    ]
    with pytest.raises(KeyError, match="tensorflow"):
        swapped(["torch==2.13.*"], {"tensorflow": "x"})


def test_one_table_of_the_page_holds_every_variable_port_and_volume() -> None:
    page = (ROOT / "docs" / "containers.md").read_text()
    (table,) = re.findall(r"^## Ports, volumes, variables\n(.*?)^## ", page, re.M | re.S)
    rows = [[cell.strip() for cell in row.split("|")[2:4]] for row in table.splitlines() if row.startswith("|")]
    documented = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    files = [path.read_text() for path in COMPOSE.glob("compose*.yaml")]
    variables = {name for text in files for name in re.findall(r"\$\{(SKYSHORE_\w+)|^ +(SKYSHORE_\w+):$", text, re.M)}
    variables = {name for pair in variables for name in pair if name}
    ports = {pair for text in files for pair in re.findall(r"127\.0\.0\.1:\$\{(SKYSHORE_\w+):-(\d+)\}", text)}
    volumes = {name for text in files for name in re.findall(r"^  (\w+):$", text.partition("\nvolumes:\n")[2], re.M)}
    assert len(variables) > 10
    assert set(documented) == variables | volumes
    assert {name: documented[name] for name, _ in ports} == dict(ports)
