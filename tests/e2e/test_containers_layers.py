"""The layers on one system of emulated nodes: links are felt, metrics are served, a chat leaves a trace."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.containers_system import COMPOSE, UP_S, Containers, call, until, why_no_engine

pytestmark = [
    pytest.mark.timeout(UP_S + 120),
    pytest.mark.skipif(bool(why_no_engine()), reason=f"no containers: {why_no_engine()}"),
]

PROJECT = "skyshore-e2e-layers"
DELAY_S = 0.4
FREE_PORTS = {f"SKYSHORE_{name}_PORT": "0" for name in ("LINKS", "PROMETHEUS", "GRAFANA", "JAEGER", "OTLP")}
COLLECTOR = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()
        print(body, file=sys.stderr)
HTTPServer(("0.0.0.0", 4318), Collector).serve_forever()
"""
"""Takes spans where the layer's collector would, and prints them: no registry need be at hand."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Everything of ours in the layers links and observability; of the others' images, those that are here."""
    no_models = tmp_path_factory.mktemp("no-models")
    no_models.chmod(0o755)
    environment = {"SKYSHORE_MODELS": str(no_models), **FREE_PORTS}
    system = Containers(PROJECT, layers=("links", "observability", "test"), environment=environment)
    system.down()
    try:
        system.up(*(name for name, image in images(system).items() if is_here(system, name, image)))
        yield system
    finally:
        system.docker("rm", "-f", f"{PROJECT}-collector", check=False)
        system.down()


def images(system: Containers) -> dict[str, str]:
    services: dict[str, Any] = json.loads(system.compose("config", "--format", "json").stdout)["services"]
    return {name: service["image"] for name, service in services.items()}


def is_here(system: Containers, name: str, image: str) -> bool:
    """Ours is built; Prometheus is used where it was pulled; the rest is stood in for."""
    ours = image.startswith("skyshore/")
    return ours or (name == "prometheus" and system.docker("image", "inspect", image, check=False).returncode == 0)


def seconds_to_answer(system: Containers) -> float:
    began_s = time.monotonic()
    system.complete(2)
    return time.monotonic() - began_s


def test_a_slow_link_is_felt_and_carries_every_byte_to_its_node(system: Containers) -> None:
    links = f"http://{system.compose('port', 'links', '7190').stdout.strip()}/links"
    system.place_by("cloud_only")
    seconds_to_answer(system)  # connects
    before, _ = call(f"{links}/cloud-1")
    assert before["up_bytes"] > 0
    assert before["connections"] >= 1
    until(lambda: bool(measured(system, "cloud-1")), 120, "the store knows the link")
    before_s = measured(system, "cloud-1")["rtt_s"]
    call(f"{links}/cloud-1", {"up": {"delay_s": DELAY_S}, "down": {"delay_s": DELAY_S}}, "PUT")
    assert seconds_to_answer(system) > 2 * DELAY_S

    def link_known() -> bool:
        system.complete(2)  # the mean over the bytes that pass changes slowly
        return float(measured(system, "cloud-1").get("rtt_s", 0.0)) > before_s + DELAY_S / 2

    until(link_known, 120, "the store knows")
    after, _ = call(f"{links}/cloud-1")
    assert after["up_bytes"] > before["up_bytes"]
    assert after["down_bytes"] > before["down_bytes"]
    system.place_by("edge_only")
    quickest_s = min(seconds_to_answer(system) for _ in range(5))  # a busy machine makes answers slower, never faster
    assert quickest_s < 2 * DELAY_S, "the edge's links are as quick as before"


def measured(system: Containers, node: str) -> dict[str, Any]:
    """What the store, and so the scheduler, knows of a node's link; empty while nothing does."""
    stored = system.compose("exec", "-T", "redis", "redis-cli", "--raw", "get", f"skyshore:link:{node}").stdout.strip()
    found: dict[str, Any] = json.loads(stored or "{}")
    return found


def test_every_process_serves_metrics_where_prometheus_looks_for_them(system: Containers) -> None:
    text = (COMPOSE / "observability" / "prometheus.yaml").read_text()
    targets = [target for target in re.findall(r'"([a-z0-9-]+:\d+)"', text) if not target.startswith("otel-collector")]
    urls = [f"http://{target}/metrics" for target in targets]
    fetch = "import sys, urllib.request as u; [print(u.urlopen(url).read(), 'END') for url in sys.argv[1:]]"
    pages = system.compose("exec", "-T", "spans", "python", "-c", fetch, *urls).stdout.split("END")[:-1]
    assert len(pages) == len(targets) == 6
    assert all("# TYPE skyshore_" in page for page in pages)


def test_prometheus_sees_every_process(system: Containers) -> None:
    if "prometheus" not in {container.rsplit("-", 2)[-2] for container in system.running()}:
        pytest.skip(f"{images(system)['prometheus']} is not here: docker pull it")
    api = f"http://{system.compose('port', 'prometheus', '9090').stdout.strip()}/api/v1"

    def health() -> dict[str, str]:
        active = call(f"{api}/targets?state=active")[0]["data"]["activeTargets"]
        return {t["labels"]["instance"]: t["health"] for t in active if t["labels"]["job"] == "skyshore"}

    until(lambda: set(health().values()) == {"up"} and len(health()) == 6, 120, "every process scraped")
    dashboard = json.loads((COMPOSE / "observability" / "grafana" / "dashboards" / "skyshore.json").read_text())
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        query = target["expr"].replace("$__rate_interval", "1m")
        body = f"query={query.replace('+', '%2B').replace('&', '%26')}".encode()
        answer, _ = call(f"{api}/query", body, kind="application/x-www-form-urlencoded")
        assert answer["status"] == "success", query


def test_a_chat_leaves_a_trace_under_its_task_id(system: Containers) -> None:
    run = ["run", "-d", "--name", f"{PROJECT}-collector", "--network", f"{PROJECT}_default"]
    run += ["--network-alias", "otel-collector", images(system)["spans"], "python", "-c", COLLECTOR]
    system.docker(*run)
    system.place_by("cloud_only")
    task_id = system.complete(2)["x-skyshore-task-id"]
    spans: list[tuple[str, dict[str, Any]]] = []

    def spans_arrived() -> bool:
        spans[:] = [pair for pair in sent(system) if pair[1]["traceId"] == task_id]
        return bool(spans)

    until(spans_arrived, 120, "the trace reached the collector")
    assert {service for service, _ in spans} == {"gateway", "cloud-1"}
    (attempt,) = [span for _, span in spans if "parentSpanId" not in span or not span["parentSpanId"]]
    assert attempt["name"] == "task"
    assert all(span["parentSpanId"] == attempt["spanId"] for _, span in spans if span is not attempt)


def sent(system: Containers) -> list[tuple[str, dict[str, Any]]]:
    """Every span that the collector was sent, and whose it is."""
    lines = system.docker("logs", f"{PROJECT}-collector").stderr.splitlines()
    groups = [group for line in lines if line.startswith("{") for group in json.loads(line)["resourceSpans"]]
    return [
        (group["resource"]["attributes"][0]["value"]["stringValue"], span)
        for group in groups
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def test_what_the_layers_add_is_locked_down_like_the_rest_and_logs_no_traceback(system: Containers) -> None:
    for service in ("links", "spans"):
        about = system.inspect(service)
        assert about["Config"]["User"] == "10001:10001"
        assert about["HostConfig"]["ReadonlyRootfs"]
        assert about["HostConfig"]["CapDrop"] == ["ALL"]
        assert about["RestartCount"] == 0
    logs = system.logs()
    assert "Traceback" not in logs, logs[-6000:]
