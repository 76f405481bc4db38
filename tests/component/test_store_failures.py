"""What a caller of the store gets, for each refusal of a server, and for a burst of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
import redis.exceptions as said

from skyshore.adapters.redis_store import RedisStore, connection, failures
from skyshore.domain.errors import QueueFull, StoreBusy, StoreUnavailable
from tests.component.test_gateway_video import ended, upload
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, world

WORDS = {
    "OOM command not allowed when used memory > 'maxmemory'.": "out of memory",
    "READONLY You can't write against a read only replica.": "read-only",
    "NOREPLICAS Not enough good replicas to write.": "too few replicas",
    "MISCONF Errors writing to the AOF file: No space left on device": "cannot write to its disk",
    "LOADING Redis is loading the dataset in memory": "reading its data",
    "MASTERDOWN Link with MASTER is down": "lost its primary",
    "CLUSTERDOWN Hash slot not served": "a cluster that is down",
    "MOVED 3999 127.0.0.1:6381": "a cluster, which is not supported",
    "BUSY Redis is busy running a script.": "busy with a script",
    "NOAUTH Authentication required.": "user and password",
    "WRONGPASS invalid username-password pair or user is disabled.": "user and password",
    "NOPERM User default has no permissions": "does not allow",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "wrong type",
    "ERR Error running script: @user_script:2: WRONGTYPE Operation against a key": "wrong type",
    "UNBLOCKED force unblock from blocking operation": "changed its role",
    "ERR max number of clients reached": "no connection left",
    "ERR unknown command 'XAUTOCLAIM'": "Redis 6.2 or later",
    "NEVERHEARD of this": "refused a command",
}


@pytest.mark.parametrize("words", WORDS)
async def test_each_refusal_has_its_cause_in_plain_words(words: str) -> None:
    """A server that answers every command with the same error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(f"-{words}\r\n".encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}")
        for call in (store.ping, store.nodes, store.open_jobs, lambda: store.load_policy("x")):
            with pytest.raises(StoreUnavailable) as raised:
                await call()
            error = raised.value
            assert WORDS[words] in error.message or "wrong type" in WORDS[words]
            assert "127.0.0.1" not in error.message and "127.0.0.1" in error.detail
            assert error.retry_after_s
        await store.close()


@pytest.mark.parametrize("junk", [b"\x00\xff\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*-7\r\n", b":x\r\n"])
async def test_a_server_that_speaks_another_protocol_is_said_to(junk: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(junk)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        store = RedisStore(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            await store.nodes()
        await store.close()


def test_data_in_a_command_is_not_taken_for_the_cause() -> None:
    quoted = said.ResponseError("Command # 1 (LPUSH x OOM READONLY) of pipeline caused error: NOREPLICAS Not enough")
    error = failures.as_domain(quoted, "h:1")
    assert "too few replicas" in error.message
    assert isinstance(error, StoreUnavailable) and "LPUSH" not in error.detail


def test_an_error_of_our_own_code_is_none_of_the_store() -> None:
    for error in (said.DataError("invalid input of type"), RuntimeError("a bug"), KeyError("x"), TypeError("y")):
        assert not failures.is_failure(error)
    lost = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    assert failures.is_failure(lost) and "cannot be reached" in failures.as_domain(lost, "").message


async def test_our_own_burst_is_429_and_says_so(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 3)
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.5)
    clip = make_clip(tmp_path / "clip.mp4")
    store = RedisStore(valkey_url)
    async with world(tmp_path / "s", FakeNode("n"), store=store) as w:
        with redis.Redis.from_url(valkey_url) as admin:
            admin.client_pause(3000)  # each call takes long, as with a burst that is too large
            answers = await asyncio.gather(*(w.client.get("/v1/tasks/x") for _ in range(40)))
            busy = [answer for answer in answers if answer.status_code == 429]
            assert busy, [answer.status_code for answer in answers]
            assert {answer.status_code for answer in answers} <= {404, 429, 503}
            for answer in busy:
                assert answer.json()["error"]["code"] == "store_busy"
                assert "too many requests use the state store" in answer.json()["error"]["message"]
                assert answer.headers["retry-after"] == "1"

        async def accepted() -> bool:
            return (await w.client.get("/ready")).status_code == 200

        await w.eventually(accepted)
        assert (await ended(w, (await upload(w, clip)).json()["task_id"]))["state"] == "done"
    await store.close()


def test_a_busy_store_is_a_full_queue() -> None:
    assert issubclass(StoreBusy, QueueFull)


async def test_the_logs_are_bounded_in_bytes(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from skyshore.domain.job import TaskRecord, TaskState
    from skyshore.domain.placement import DecisionRecord

    schema = "skyshore.adapters.redis_store.schema"
    monkeypatch.setattr(f"{schema}.MOST_LOG_BYTES", 200_000)
    monkeypatch.setattr(f"{schema}.MOST_ENDED_REQUESTS", 50)
    store = RedisStore(valkey_url)
    for number in range(40):
        await store.append_decisions(
            [DecisionRecord(f"t{number}-{i}", i, "p", "c", "a" * 1000, 1.0) for i in range(10)]
        )
        records = [TaskRecord(f"r{number}-{i}", "llm", TaskState.DONE, 0.0, 0.0) for i in range(10)]
        await store.put_tasks(records)
    with redis.Redis.from_url(valkey_url) as client:
        assert 100 <= client.llen("skyshore:decisions") <= 200
        assert client.llen("skyshore:requests:ended") == 50
        assert len(list(client.scan_iter("skyshore:task:*"))) == 50
    assert await store.task("r39-9") and await store.task("r0-0") is None
    await store.close()


async def test_the_user_that_the_docs_name_may_do_everything_needed(valkey_url: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/state.md").read_text("utf-8")
    command = next(line.strip() for line in page.splitlines() if line.strip().startswith("ACL SETUSER skyshore"))
    with redis.Redis.from_url(valkey_url) as admin:
        admin.execute_command(*command.replace("PASSWORD", "secret").split())
    store = RedisStore(valkey_url.replace("redis://", "redis://skyshore:secret@"))
    clip = make_clip(tmp_path / "clip.mp4")
    async with world(tmp_path / "s", FakeNode("n"), store=store) as w:
        assert (await ended(w, (await upload(w, clip)).json()["task_id"]))["state"] == "done"
        assert await store.open_jobs() == set()
        with redis.Redis.from_url(valkey_url) as admin:
            admin.set("skyshore:decisions", "x")
        with pytest.raises(StoreUnavailable, match="set aside"):
            await store.decisions(1)
        assert await store.decisions(1) == []
    await store.close()
