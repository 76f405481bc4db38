"""`RedisStore`: the StateStore port over redis-py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from skyshore.adapters.redis_store import schema
from skyshore.adapters.redis_store.scripts import ACCEPT_JOB, CLAIM_JOB, END_JOB, RENEW_JOB, WAITING_JOBS
from skyshore.domain.errors import NodeUnavailable, NotFound, QueueFull
from skyshore.domain.job import Job, JobRank, TaskRecord, WaitingJob
from skyshore.domain.node import Link, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord

SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 1.0
LONGEST_BLOCK_S = 2.0
"""A blocking read returns empty after this long at most, well before the socket's own timeout."""
CONNECTIONS = 16
RETRIES = 3
"""Retries after a lost connection, about half a second in all; then the call raises NodeUnavailable."""


class RedisStore:
    """State shared by all processes. Reconnects by itself; while the server is away, calls raise NodeUnavailable.

    Outcomes and decisions are appended at least once: a retry after a lost reply may write them twice.
    """

    def __init__(self, url: str) -> None:
        """`url` as redis-py reads it, for example redis://127.0.0.1:6379/0. Nothing is sent yet.

        Raises:
            ValueError: the URL cannot be read.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_TIMEOUT_S,
            protocol=2,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=RETRIES),
        )
        where = pool.connection_kwargs
        self._where = f"{where.get('host', where.get('path', url))}:{where.get('port', '')}".rstrip(":")
        self._redis: Redis = Redis.from_pool(pool)
        self._accept = self._redis.register_script(ACCEPT_JOB)
        self._waiting = self._redis.register_script(WAITING_JOBS)
        self._claim = self._redis.register_script(CLAIM_JOB)
        self._renew = self._redis.register_script(RENEW_JOB)
        self._end = self._redis.register_script(END_JOB)

    @asynccontextmanager
    async def _answers(self) -> AsyncIterator[None]:
        """Raise NodeUnavailable when the server does not answer, and a cancellation that the client missed."""
        task = asyncio.current_task()
        asked_before = task.cancelling() if task else 0
        try:
            yield
        except (LostConnection, NoAnswer, OSError) as error:
            raise NodeUnavailable(
                f"the state store at {self._where} does not answer ({error}); start it or set SKYSHORE_REDIS_URL",
                retry_after_s=1.0,
            ) from error
        # redis-py sends through asyncio.wait_for, which before Python 3.12 drops a cancellation that meets its result.
        if task and task.cancelling() > asked_before:
            raise asyncio.CancelledError

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
            known: Any = await self._redis.zrange(schema.NODES, 0, -1)
            if not known:
                return []
            reports: Any = await self._redis.mget([schema.node_key(name.decode()) for name in known])
            if None in reports:
                await self._redis.zremrangebyscore(schema.NODES, "-inf", time.time() - schema.STALE_INDEX_S)
        return [schema.decode_report(report) for report in reports if report is not None]

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
        pairs = zip(node_ids, found, strict=True)
        return {node_id: schema.decode_link(data) for node_id, data in pairs if data is not None}

    # ------------------------------------------------------------------------------------------- tasks and jobs

    async def put_task(self, record: TaskRecord) -> None:
        """See StateStore."""
        await self.put_tasks([record])

    async def put_tasks(self, records: Sequence[TaskRecord]) -> None:
        """See StateStore."""
        if not records:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            for record in records:
                ttl_s = schema.task_ttl_s(record)
                pipe.set(schema.task_key(record.task_id), schema.encode_record(record), ex=ttl_s)
            await pipe.execute()

    async def task(self, task_id: str) -> TaskRecord | None:
        """See StateStore."""
        async with self._answers():
            data: Any = await self._redis.get(schema.task_key(task_id))
        return schema.decode_record(data) if data is not None else None

    async def accept_job(self, record: TaskRecord, body: bytes, rank: JobRank, most_of_caller: int) -> None:
        """See StateStore. Accepting a task id again changes nothing."""
        async with self._answers():
            accepted = await self._accept(
                keys=[schema.JOBS, schema.task_key(record.task_id)],
                args=[
                    schema.JOBS_GROUP,
                    record.task_id,
                    schema.encode_record(record),
                    schema.task_ttl_s(record),
                    schema.MOST_JOBS,
                    body,
                    rank.caller,
                    most_of_caller,
                    schema.encode_rank(rank),
                ],
            )
        if accepted == -1:
            raise QueueFull(f"{schema.MOST_JOBS} jobs are waiting; try again later", retry_after_s=10.0)
        if accepted == -2:
            raise QueueFull(
                f"you have {most_of_caller} open jobs, the most of one caller; wait until one has ended",
                retry_after_s=10.0,
            )

    async def waiting_jobs(self, idle_s: float) -> tuple[str, list[WaitingJob]]:
        """See StateStore."""
        async with self._answers():
            last, found = await self._waiting(keys=[schema.JOBS], args=[schema.JOBS_GROUP, int(idle_s * 1000)])
        return last.decode(), [
            WaitingJob(entry_id.decode(), schema.decode_rank(rank), claims) for entry_id, rank, claims in found
        ]

    async def wait_for_job(self, after: str, block_s: float) -> None:
        """See StateStore. Returns after at most two seconds, whatever `block_s` says."""
        async with self._answers():
            await self._redis.xread({schema.JOBS: after}, count=1, block=_block_ms(block_s))

    async def claim_job(self, consumer: str, entry_id: str, idle_s: float) -> Job | None:
        """See StateStore."""
        async with self._answers():
            claimed = await self._claim(
                keys=[schema.JOBS], args=[schema.JOBS_GROUP, consumer, entry_id, int(idle_s * 1000)]
            )
        if claimed is None:
            return None
        task_id, body, times = claimed
        return Job(entry_id, task_id.decode(), body, times)

    async def renew_job(self, consumer: str, job: Job, record: TaskRecord | None = None) -> None:
        """See StateStore."""
        content = (schema.encode_record(record), schema.task_ttl_s(record)) if record else ("", 0)
        async with self._answers():
            renewed = await self._renew(
                keys=[schema.JOBS, schema.task_key(job.task_id)],
                args=[schema.JOBS_GROUP, consumer, job.entry_id, *content],
            )
        if not renewed:
            raise NotFound(f"job '{job.task_id}' is no longer with '{consumer}'; stop working on it")

    async def end_job(self, consumer: str, job: Job, record: TaskRecord, dead_reason: str = "") -> bool:
        """See StateStore."""
        return await self._end_job(consumer, job.entry_id, record, dead_reason)

    async def cancel_job(self, record: TaskRecord) -> bool:
        """See StateStore."""
        return await self._end_job("", "", record, "")

    async def _end_job(self, consumer: str, entry_id: str, record: TaskRecord, dead_reason: str) -> bool:
        async with self._answers():
            ended = await self._end(
                keys=[schema.JOBS, schema.task_key(record.task_id), schema.DEAD_JOBS],
                args=[
                    schema.JOBS_GROUP,
                    consumer,
                    entry_id,
                    record.task_id,
                    schema.encode_record(record),
                    schema.task_ttl_s(record),
                    dead_reason,
                    schema.MOST_DEAD_JOBS,
                ],
            )
        return bool(ended)

    # ------------------------------------------------------------------------------------------- learning

    async def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See StateStore."""
        if not outcomes:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            for outcome in outcomes:
                entry: dict[Any, Any] = {"outcome": schema.encode_outcome(outcome)}
                pipe.xadd(schema.OUTCOMES, entry, maxlen=schema.MOST_OUTCOMES, approximate=True)
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
        outcomes = [schema.decode_outcome(fields[b"outcome"]) for _, fields in entries]
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
        async with self._answers():
            snapshot: Any = await self._redis.get(schema.policy_key(name))
        return bytes(snapshot) if snapshot is not None else None

    async def append_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        """See StateStore."""
        if not decisions:
            return
        async with self._answers(), self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(schema.DECISIONS, *map(schema.encode_decision, decisions))
            pipe.ltrim(schema.DECISIONS, 0, schema.MOST_DECISIONS - 1)
            await pipe.execute()

    async def decisions(self, count: int) -> list[DecisionRecord]:
        """See StateStore."""
        if count <= 0:
            return []
        async with self._answers():
            newest: Any = await self._redis.lrange(schema.DECISIONS, 0, count - 1)
        return [schema.decode_decision(data) for data in newest]


def _block_ms(block_s: float) -> int | None:
    """Redis reads 0 as "wait without limit"; here it means "do not wait"."""
    return int(min(block_s, LONGEST_BLOCK_S) * 1000) or None
