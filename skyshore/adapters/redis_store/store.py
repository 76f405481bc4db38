"""`RedisStore`: the StateStore port over redis-py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from skyshore.adapters.redis_store import schema
from skyshore.adapters.redis_store.connection import StoreConnection
from skyshore.adapters.redis_store.scripts import ACCEPT_JOB, CLAIM_JOB, END_JOB, RENEW_JOB, RESTORE_JOB, WAITING_JOBS
from skyshore.domain.errors import InvalidTask, NotFound, QueueFull, StoreUnavailable
from skyshore.domain.job import ENDED, Job, JobRank, TaskRecord, WaitingJob
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
        self._waiting = self._redis.register_script(WAITING_JOBS)
        self._claim = self._redis.register_script(CLAIM_JOB)
        self._renew = self._redis.register_script(RENEW_JOB)
        self._end = self._redis.register_script(END_JOB)

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
        ended = [r.task_id for r in records if r.kind == TaskKind.LLM and r.state in ENDED]
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

    async def accept_job(self, record: TaskRecord, body: bytes, rank: JobRank, most_of_caller: int) -> None:
        """See StateStore. Accepting a task id again changes nothing."""
        _check_body(body)
        key = schema.task_key(record.task_id)
        async with self._answers(key):
            accepted = await self._accept(
                keys=[schema.JOBS, key],
                args=[schema.JOBS_GROUP, *_entry_arguments(record, body, rank), most_of_caller],
            )
        _check_room(accepted)
        if accepted == -2:
            raise QueueFull(
                f"you have {most_of_caller} open jobs, the most of one caller; wait until one has ended",
                retry_after_s=10.0,
            )

    async def restore_job(self, record: TaskRecord, body: bytes, rank: JobRank) -> bool:
        """See StateStore."""
        key = schema.task_key(record.task_id)
        async with self._answers(key):
            added = await self._restore(keys=[schema.JOBS, key], args=_entry_arguments(record, body, rank))
        _check_room(added)
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
        return Job(entry_id, task_id.decode(errors="replace"), body, times)

    async def renew_job(self, consumer: str, job: Job, record: TaskRecord | None = None) -> None:
        """See StateStore."""
        content = (schema.encode_record(record), schema.task_ttl_s(record)) if record else ("", 0)
        async with self._answers(schema.task_key(job.task_id)):
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
        async with self._answers(schema.task_key(record.task_id)):
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


def _entry_arguments(record: TaskRecord, body: bytes, rank: JobRank) -> list[Any]:
    """What ACCEPT_JOB and RESTORE_JOB have in common."""
    return [
        record.task_id,
        schema.encode_record(record),
        schema.task_ttl_s(record),
        schema.MOST_JOBS,
        body,
        rank.caller,
        schema.encode_rank(rank),
    ]


def _check_body(body: bytes) -> None:
    if len(body) > schema.MOST_JOB_BYTES:
        raise InvalidTask(f"the options of a clip are over {schema.MOST_JOB_BYTES} bytes; name fewer classes")


def _check_room(answer: int) -> None:
    if answer == -1:
        raise QueueFull(f"{schema.MOST_JOBS} jobs are waiting; try again later", retry_after_s=10.0)


def _kept(most: int, encoded: Sequence[bytes]) -> int:
    """How many entries of a log are kept, so that it stays within `MOST_LOG_BYTES` if all were as large as these."""
    mean_bytes = max(1, sum(map(len, encoded)) // len(encoded))
    return max(min(FEWEST_KEPT, most), min(most, schema.MOST_LOG_BYTES // mean_bytes))
