"""The process that emulates the links of a scenario, and its file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cli.launcher.health import HealthCheck, Probe
from cli.launcher.nodes import NodeAddress
from cli.launcher.ports import HOST, Ports
from cli.launcher.process import ProcessSpec
from services.links.schemas import NewLinkBody, SettingsBody
from skyshore.scenario import Scenario
from skyshore.scenario.links import link_settings

LINKS_PORT = 7190
FIRST_LINK_PORT = 7191


def scenario_links(scenario: Scenario, listening: Mapping[str, str], ports: Ports) -> list[NewLinkBody]:
    """A relay for every node that has a link in the scenario. `listening`: node id -> host:port of the node."""
    found: list[NewLinkBody] = []
    for node_id, target in listening.items():
        settings = link_settings(scenario, node_id)
        if settings is not None:
            listen = f"{HOST}:{ports.choose(f'link of {node_id}', FIRST_LINK_PORT + len(found))}"
            body = dict(SettingsBody.of_settings(settings))
            found.append(NewLinkBody(name=node_id, listen=listen, target=target, **body))
    return found


def addresses_behind(links: list[NewLinkBody], listening: Mapping[str, str]) -> dict[str, NodeAddress]:
    """Node id -> the address of the node and of the relay of its link, if it has one."""
    relays = {link.name: link.listen for link in links}
    return {node_id: NodeAddress(address, relays.get(node_id, "")) for node_id, address in listening.items()}


def links_spec(
    links: list[NewLinkBody], scenario: Scenario, folder: Path, *, file: Path, ports: Ports, shared: Mapping[str, str]
) -> ProcessSpec:
    """The process of the link emulator. Writes its links to `file`; `folder` holds the trace files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[{','.join(link.model_dump_json() for link in links)}]", encoding="utf-8")
    address = f"{HOST}:{ports.choose('links', LINKS_PORT)}"
    env = {
        **shared,
        "SKYSHORE_LINKS_LISTEN": address,
        "SKYSHORE_LINKS_FILE": str(file.absolute()),
        "SKYSHORE_LINKS_TRACES": str(folder.absolute()),
        "SKYSHORE_LINKS_SEED": str(scenario.seed),
    }
    health = HealthCheck(Probe.HTTP, f"http://{address}/health")
    return ProcessSpec("links", (sys.executable, "-m", "services.links"), env, health)
