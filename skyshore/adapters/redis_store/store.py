"""`RedisStore`: the StateStore port over redis-py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from skyshore.adapters.redis_store import schema
from skyshore.adapters.redis_store.connection import StoreConnection
from skyshore.adapters.redis_store.scripts import ACCEPT_JOB, RENEW_JOB, RESTORE_JOB
from skyshore.domain.errors import InvalidTask, NotFound, QueueFull, StoreUnavailable
from skyshore.domain.job import Job, TaskRecord
from skyshore.domain.node import Link, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind

LONGEST_BLOCK_S = 2.0
"""A blocking read returns empty after this long at most, well before the socket's own timeout."""
PAGE = 500
"""Entries of the work stream that one command reads."""
FEWEST_KEPT = 100
"""Entries of a log that are kept however large they are."""
_EPOCH = ""
"""Member of the index of nodes that is no node. Its score is the negative time at which the index was made."""


class RedisStore:
    """State shared by all processes. Reconnects by itself; every failure raises StoreUnavailable or StoreBusy.

    Outcomes and decisions are appended at least once: a retry after a lost reply may write them twice.
    """

    def __init__(self, url: str) -> None:
        """`url` as redis-py reads it, for example redis://127.0.0.1:6379/0. Nothing is sent yet.

        Raises:
            ValueError: the URL cannot be read.
        """
        connection = StoreConnection(url)
        self._answers, self._readable = connection.answers, connection.readable
        self._redis = connection.redis
        self._accept = self._redis.register_script(ACCEPT_JOB)
        self._restore = self._redis.register_script(RESTORE_JOB)
        self._renew = self._redis.register_script(RENEW_JOB)

    async def ping(self) -> None:
        """See StateStore."""
        async with self._answers():
            await self._redis.ping()

    async def close(self) -> None:
        """See StateStore."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    # ------------------------------------------------------------------------------------------- nodes

    async def register_node(self, node: Node, status: NodeStatus, lease_s: float) -> None:
        """See StateStore."""
        async with self._answers(), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(
                schema.node_key(node.node_id), schema.encode_report(NodeReport(node, status)), px=int(lease_s * 1000)
            )
            pipe.zadd(schema.NODES, {_EPOCH: -time.time()}, nx=True)
            pipe.zadd(schema.NODES, {node.node_id: time.time() + lease_s})
            await pipe.execute()

    async def remove_node(self, node_id: str) -> None:
        """See StateStore."""
        async with self._answers(), self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(schema.node_key(node_id))
            pipe.zrem(schema.NODES, node_id)
            await pipe.execute()

    async def nodes(self) -> list[NodeReport]:
        """See StateStore."""
        async with self._answers():
            found: Any = await self._redis.zrange(schema.NODES, 0, -1)
            known = self._readable("node id", bytes.decode, (name for name in found if name != _EPOCH.encode()))
            if not known:
                return []
            reports: Any = await self._redis.mget([schema.node_key(name) for name in known])
        missing = [schema.node_key(name) for name, report in zip(known, reports, strict=True) if report is None]
        if missing:
            await self._check_missing(missing)
        return self._readable("node", schema.decode_report, (report for report in reports if report is not None))

    async def _check_missing(self, keys: Sequence[str]) -> None:
        """MGET also shows nothing for a key of a wrong type: then it is unknown whether the node is there."""
        async with self._answers(*keys), self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            pipe.zremrangebyscore(schema.NODES, 0, time.time() - schema.STALE_INDEX_S)
            await pipe.execute()

    async def registry_epoch(self) -> float:
        """See StateStore."""
        async with self._answers(), self._redis.pipeline(transaction=True) as pipe:
            pipe.zadd(schema.NODES, {_EPOCH: -time.time()}, nx=True)
            pipe.zscore(schema.NODES, _EPOCH)
            _, score = await pipe.execute()
        return -float(score)

    async def report_links(self, links: Mapping[str, Link], lease_s: float) -> None:
        """See StateStore."""
        if not links:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            for node_id, link in links.items():
                pipe.set(schema.link_key(node_id), schema.encode_link(link), px=int(lease_s * 1000))
            await pipe.execute()

    async def links(self, node_ids: Sequence[str]) -> dict[str, Link]:
        """See StateStore."""
        if not node_ids:
            return {}
        async with self._answers():
            found: Any = await self._redis.mget([schema.link_key(node_id) for node_id in node_ids])
        pairs = [(node_id, data) for node_id, data in zip(node_ids, found, strict=True) if data is not None]
        return dict(self._readable("link", lambda pair: (pair[0], schema.decode_link(pair[1])), pairs))

    # ------------------------------------------------------------------------------------------- tasks and jobs

    async def put_task(self, record: TaskRecord) -> None:
        """See StateStore."""
        await self.put_tasks([record])

    async def put_tasks(self, records: Sequence[TaskRecord]) -> None:
        """See StateStore."""
        if not records:
            return
        ended = [r.task_id for r in records if r.kind == TaskKind.LLM and r.state in schema.ENDED]
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            for record in records:
                ttl_s = schema.task_ttl_s(record)
                pipe.set(schema.task_key(record.task_id), schema.encode_record(record), ex=ttl_s)
            if ended:
                pipe.lpush(schema.ENDED_REQUESTS, *ended)
            answers = await pipe.execute()
            if ended and answers[-1] > schema.MOST_ENDED_REQUESTS:
                await self._delete_oldest(answers[-1] - schema.MOST_ENDED_REQUESTS)

    async def _delete_oldest(self, count: int) -> None:
        """Delete the records of the requests that ended first."""
        oldest: Any = await self._redis.rpop(schema.ENDED_REQUESTS, count)
        if oldest:
            await self._redis.unlink(*(schema.task_key(name.decode(errors="replace")) for name in oldest))

    async def task(self, task_id: str) -> TaskRecord | None:
        """See StateStore."""
        async with self._answers(schema.task_key(task_id)):
            data: Any = await self._redis.get(schema.task_key(task_id))
        if data is None:
            return None
        records = self._readable("task", schema.decode_record, [data])
        if not records:
            raise StoreUnavailable("the record of this task is damaged and cannot be read; send the request again")
        return records[0]

    async def accept_job(self, record: TaskRecord, body: bytes) -> None:
        """See StateStore. Accepting a task id again changes nothing.

        Raises:
            QueueFull: as many jobs wait as the stream may hold.
        """
        await self._add_job(self._accept, record, body)

    async def restore_job(self, record: TaskRecord, body: bytes) -> bool:
        """See StateStore."""
        return await self._add_job(self._restore, record, body)

    async def _add_job(self, script: Any, record: TaskRecord, body: bytes) -> bool:
        if len(body) > schema.MOST_JOB_BYTES:
            raise InvalidTask(f"the options of a clip are over {schema.MOST_JOB_BYTES} bytes; name fewer classes")
        key = schema.task_key(record.task_id)
        arguments = [record.task_id, schema.encode_record(record), schema.task_ttl_s(record), schema.MOST_JOBS, body]
        async with self._answers(key):
            added = await script(keys=[key, schema.JOBS], args=arguments)
        if added == -1:
            raise QueueFull(f"{schema.MOST_JOBS} jobs are waiting; try again later", retry_after_s=10.0)
        return bool(added)

    async def open_jobs(self) -> set[str]:
        """See StateStore."""
        found: set[str] = set()
        start = "-"
        while True:
            async with self._answers():
                page: Any = await self._redis.xrange(schema.JOBS, min=start, count=PAGE)
            found.update(fields.get(b"task", b"").decode(errors="replace") for _, fields in page)
            if len(page) < PAGE:
                return found
            start = f"({page[-1][0].decode()}"

    async def become_restorer(self, name: str, lease_s: float) -> bool:
        """See StateStore."""
        async with self._answers(schema.RESTORER):
            taken: Any = await self._redis.set(schema.RESTORER, name, nx=True, px=int(lease_s * 1000))
        return bool(taken)

    async def claim_jobs(self, consumer: str, count: int, block_s: float, idle_s: float) -> list[Job]:
        """See StateStore. Returns after at most two seconds, whatever `block_s` says."""
        async with self._answers():
            try:
                return await self._claim(consumer, count, block_s, idle_s)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            await self._create_group()
            return await self._claim(consumer, count, block_s, idle_s)

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(schema.JOBS, schema.JOBS_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another process was faster
                raise

    async def _claim(self, consumer: str, count: int, block_s: float, idle_s: float) -> list[Job]:
        left = await self._claim_left(consumer, count, idle_s)
        if left:
            return left
        fresh: Any = await self._redis.xreadgroup(
            schema.JOBS_GROUP, consumer, {schema.JOBS: ">"}, count=count, block=_block_ms(block_s)
        )
        return await self._jobs([_Entry(entry_id, fields, 1) for entry_id, fields in fresh[0][1]] if fresh else [])

    async def _jobs(self, entries: Sequence[_Entry]) -> list[Job]:
        """The jobs of these entries. An entry that is no job would come back for ever: it goes to the dead letters."""
        jobs = self._readable("job", _job, entries)
        for entry in entries:
            if entry.entry_id.decode() not in {job.entry_id for job in jobs}:
                await self._move_entry(entry.entry_id, {**entry.fields, b"reason": b"it cannot be read"})
        return jobs

    async def _claim_left(self, consumer: str, count: int, idle_s: float) -> list[Job]:
        """Jobs that another consumer claimed and did not finish."""
        answer: Any = await self._redis.xautoclaim(
            schema.JOBS, schema.JOBS_GROUP, consumer, int(idle_s * 1000), count=count
        )
        entries = [(entry_id, fields) for entry_id, fields in answer[1] if fields]
        if not entries:
            return []
        first, last = entries[0][0], entries[-1][0]
        pending: Any = await self._redis.xpending_range(
            schema.JOBS, schema.JOBS_GROUP, min=first, max=last, count=10 * count, consumername=consumer
        )
        deliveries = {entry["message_id"]: entry["times_delivered"] for entry in pending}
        return await self._jobs([_Entry(entry_id, fields, deliveries.get(entry_id, 2)) for entry_id, fields in entries])

    async def renew_job(self, consumer: str, job: Job) -> None:
        """See StateStore.

        Raises:
            NotFound: the job ended or was taken over; stop working on it.
        """
        async with self._answers():
            try:
                renewed = await self._renew(keys=[schema.JOBS], args=[schema.JOBS_GROUP, consumer, job.entry_id])
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                renewed = 0  # the server lost the stream, and with it the job
        if not renewed:
            raise NotFound(f"job '{job.task_id}' is no longer with '{consumer}'; stop working on it")

    async def finish_job(self, job: Job) -> None:
        """See StateStore."""
        async with self._answers(), self._redis.pipeline(transaction=True) as pipe:
            pipe.xack(schema.JOBS, schema.JOBS_GROUP, job.entry_id)
            pipe.xdel(schema.JOBS, job.entry_id)
            await pipe.execute()

    async def move_to_dead_letters(self, job: Job, reason: str) -> None:
        """See StateStore."""
        async with self._answers():
            await self._move_entry(job.entry_id, {"task": job.task_id, "body": job.body, "reason": reason})

    async def _move_entry(self, entry_id: Any, letter: dict[Any, Any]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(schema.DEAD_JOBS, letter, maxlen=schema.MOST_DEAD_JOBS, approximate=True)
            pipe.xack(schema.JOBS, schema.JOBS_GROUP, entry_id)
            pipe.xdel(schema.JOBS, entry_id)
            await pipe.execute()

    # ------------------------------------------------------------------------------------------- learning

    async def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See StateStore."""
        if not outcomes:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            encoded = [schema.encode_outcome(outcome) for outcome in outcomes]
            kept = _kept(schema.MOST_OUTCOMES, encoded)
            for data in encoded:
                pipe.xadd(schema.OUTCOMES, {"outcome": data}, maxlen=kept, approximate=True)
            await pipe.execute()

    async def read_outcomes(self, after: str, count: int, block_s: float) -> tuple[str, list[Outcome]]:
        """See StateStore. Returns after at most two seconds, whatever `block_s` says."""
        async with self._answers():
            if after == "$":
                after = await self._newest_outcome()
            answer: Any = await self._redis.xread({schema.OUTCOMES: after}, count=count, block=_block_ms(block_s))
        entries = answer[0][1] if answer else []
        if not entries:
            return after, []
        outcomes = self._readable("outcome", lambda entry: schema.decode_outcome(entry[1][b"outcome"]), entries)
        return entries[-1][0].decode(), outcomes

    async def _newest_outcome(self) -> str:
        newest: Any = await self._redis.xrevrange(schema.OUTCOMES, count=1)
        return newest[0][0].decode() if newest else "0"

    async def save_policy(self, name: str, snapshot: bytes) -> None:
        """See StateStore."""
        async with self._answers():
            await self._redis.set(schema.policy_key(name), snapshot)

    async def load_policy(self, name: str) -> bytes | None:
        """See StateStore."""
        async with self._answers(schema.policy_key(name)):
            snapshot: Any = await self._redis.get(schema.policy_key(name))
        return bytes(snapshot) if snapshot is not None else None

    async def append_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        """See StateStore."""
        if not decisions:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            encoded = [schema.encode_decision(record) for record in decisions]
            pipe.lpush(schema.DECISIONS, *encoded)
            pipe.ltrim(schema.DECISIONS, 0, _kept(schema.MOST_DECISIONS, encoded) - 1)
            await pipe.execute()

    async def decisions(self, count: int) -> list[DecisionRecord]:
        """See StateStore."""
        if count <= 0:
            return []
        async with self._answers():
            newest: Any = await self._redis.lrange(schema.DECISIONS, 0, count - 1)
        return self._readable("decision", schema.decode_decision, newest)


def _block_ms(block_s: float) -> int | None:
    """Redis reads 0 as "wait without limit"; here it means "do not wait"."""
    return int(min(block_s, LONGEST_BLOCK_S) * 1000) or None


class _Entry(NamedTuple):
    """One entry of the work stream, as it was delivered."""

    entry_id: bytes
    fields: dict[bytes, bytes]
    deliveries: int


def _job(entry: _Entry) -> Job:
    return Job(entry.entry_id.decode(), entry.fields[b"task"].decode(), entry.fields[b"body"], entry.deliveries)


def _kept(most: int, encoded: Sequence[bytes]) -> int:
    """How many entries of a log are kept, so that it stays within `MOST_LOG_BYTES` if all were as large as these."""
    mean_bytes = max(1, sum(map(len, encoded)) // len(encoded))
    return max(min(FEWEST_KEPT, most), min(most, schema.MOST_LOG_BYTES // mean_bytes))
