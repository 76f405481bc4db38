"""`skyshore status` and `nodes`: the processes of the system, and its nodes as the gateway sees them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from rich.console import Console

from cli.connection import GatewayApi
from cli.launcher.health import Probe
from cli.launcher.state_file import ProcessEntry, SystemState
from cli.render import say, show_table
from skyshore.adapters.redis_store.schema import NODES
from skyshore.domain.errors import SkyshoreError
from skyshore.report.tables import NONE, Table

MEGABYTE = 1e6


def show_status(state: SystemState, *, as_json: bool) -> bool:
    """Print processes and nodes; True if all of them serve."""
    with ThreadPoolExecutor(len(state.processes) or 1) as pool:
        processes = list(pool.map(_process, state.processes))
    problem = ""
    try:
        nodes = fleet(GatewayApi(state.gateway_url), state.redis_url)
    except SkyshoreError as error:
        nodes, problem = [], error.message
    serving = all(process["health"] == "serving" for process in processes) and not problem
    if as_json:
        body = {
            "ready": state.ready,
            "gateway": state.gateway_url,
            "links": state.links_url,
            "processes": processes,
            "nodes": nodes,
        }
        print(json.dumps({**body, "problem": problem or None}))
        return serving
    console = Console()
    columns = ("process", "pid", "health", "restarts", "address", "memory")
    rows = tuple(
        (p["name"], str(p["pid"]), p["health"], str(p["restarts"]), p["address"], f"{p['memory_mb']:.0f} MB")
        for p in processes
    )
    show_table(console, Table(f"gateway {state.gateway_url}", columns, rows))
    if problem:
        say(console, (f"nodes are unknown: {problem}", "red"))
    else:
        show_table(console, _node_table(nodes))
    return serving


def show_nodes(api: GatewayApi, redis_url: str, *, as_json: bool) -> None:
    """Print the live nodes and their arms."""
    nodes = fleet(api, redis_url)
    if as_json:
        print(json.dumps(nodes))
        return
    console = Console()
    show_table(console, _node_table(nodes))
    rows = tuple(
        (arm["arm_id"], arm["kind"], f"{arm['quality']:.2f}", str(arm["slots"]), _speed(arm))
        for node in nodes
        for arm in node["arms"]
    )
    show_table(console, Table("", ("arm", "kind", "quality", "slots", "speed (one task)"), rows, wide_last=True))


def fleet(api: GatewayApi, redis_url: str = "") -> list[dict[str, Any]]:
    """The live nodes as in `/v1/nodes`, with `lease_left_s` in seconds; None if the store is not known."""
    nodes: list[dict[str, Any]] = api.get("/v1/nodes")["nodes"]
    ends = _lease_ends(redis_url) if redis_url else {}
    for node in nodes:
        end_s = ends.get(node["node_id"])
        node["lease_left_s"] = None if end_s is None else round(max(0.0, end_s - time.time()), 2)
    return nodes


def _lease_ends(redis_url: str) -> dict[str, float]:
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2, protocol=2) as client:
            return {node_id.decode(): score for node_id, score in client.zrange(NODES, 0, -1, withscores=True)}
    except redis.RedisError:
        return {}  # only the leases are not known then


def _process(entry: ProcessEntry) -> dict[str, Any]:
    process = entry.id.find()
    ended = entry.trouble or "ended"
    health = ended if process is None else entry.health.problem(timeout_s=3.0) or "serving"
    address = entry.health.address
    return {
        "name": entry.name,
        "pid": entry.id.pid,
        "health": health,
        "address": address.removesuffix("/ready") if entry.health.probe is Probe.HTTP else address,
        "memory_mb": round(process.memory_info().rss / MEGABYTE, 1) if process else 0.0,
        "restarts": entry.restarts,
        "log": entry.log,
    }


def _node_table(nodes: list[dict[str, Any]]) -> Table:
    columns = ("node", "tier", "running", "queued", "power", "expires in", "engine: models")
    rows = tuple(_node_row(node) for node in sorted(nodes, key=lambda node: str(node["node_id"])))
    return Table(f"{len(nodes)} live nodes", columns, rows, wide_last=True)


def _node_row(node: dict[str, Any]) -> tuple[str, ...]:
    status, left_s = node["status"], node["lease_left_s"]
    models = ", ".join(dict.fromkeys(arm["model"] for arm in node["arms"]))
    load = (str(status["running"]), str(status["queued"]), f"{status['power_watts']:.1f} W")
    lease = NONE if left_s is None else f"{left_s:.1f} s"
    return (node["node_id"], node["tier"], *load, lease, f"{node['engine']}: {models}")


def _speed(arm: dict[str, Any]) -> str:
    if arm["kind"] == "llm":
        return f"{arm['prefill_tokens_per_s']:.0f} / {arm['decode_tokens_per_s']:.0f} tokens/s"
    return f"{arm['frame_s'] * 1e3:.1f} ms/frame, {arm['bytes_per_frame'] / 1e3:.0f} kB"
