"""`MemoryStore`: the StateStore port within one process. The contract suite runs on it and on the real one alike."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from skyshore.domain.errors import NotFound, QueueFull, StoreUnavailable
from skyshore.domain.job import ENDED, Job, JobRank, TaskRecord, WaitingJob
from skyshore.domain.node import Link, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord


@dataclass
class _Entry:
    task_id: str
    body: bytes
    rank: JobRank
    consumer: str = ""
    touched_s: float = 0.0
    deliveries: int = 0


@dataclass
class MemoryStore:
    """Set `reachable` to False and every call raises StoreUnavailable, as when the server is away."""

    now_s: Callable[[], float] = time.monotonic
    reachable: bool = True
    dead: list[tuple[str, str]] = field(default_factory=list)
    """Task id and reason of every job in the dead letters."""

    def __post_init__(self) -> None:
        self._nodes: dict[str, tuple[Node, NodeStatus, float]] = {}
        self._links: dict[str, tuple[Link, float]] = {}
        self._tasks: dict[str, TaskRecord] = {}
        self._jobs: dict[str, _Entry] = {}
        self._job_count = 0
        self._outcomes: list[Outcome] = []
        self._policies: dict[str, bytes] = {}
        self._decisions: deque[DecisionRecord] = deque(maxlen=20_000)
        self._changed = asyncio.Event()
        self._restorer_until_s = 0.0

    async def ping(self) -> None:
        if not self.reachable:
            raise StoreUnavailable("the state store does not answer", retry_after_s=1.0)

    async def close(self) -> None:
        return

    async def register_node(self, node: Node, status: NodeStatus, lease_s: float) -> None:
        await self.ping()
        self._nodes[node.node_id] = (node, status, self.now_s() + lease_s)

    async def remove_node(self, node_id: str) -> None:
        await self.ping()
        self._nodes.pop(node_id, None)

    async def nodes(self) -> list[NodeReport]:
        await self.ping()
        now_s = self.now_s()
        self._nodes = {name: entry for name, entry in self._nodes.items() if entry[2] > now_s}
        return [NodeReport(node, status) for node, status, _ in self._nodes.values()]

    async def registry_epoch(self) -> float:
        await self.ping()
        return 1.0

    async def report_links(self, links: Mapping[str, Link], lease_s: float) -> None:
        await self.ping()
        self._links |= {node_id: (link, self.now_s() + lease_s) for node_id, link in links.items()}

    async def links(self, node_ids: Sequence[str]) -> dict[str, Link]:
        await self.ping()
        return {name: self._links[name][0] for name in node_ids if self._links.get(name, (0, 0))[1] > self.now_s()}

    async def put_task(self, record: TaskRecord) -> None:
        await self.put_tasks([record])

    async def put_tasks(self, records: Sequence[TaskRecord]) -> None:
        await self.ping()
        self._tasks |= {record.task_id: record for record in records}

    async def task(self, task_id: str) -> TaskRecord | None:
        await self.ping()
        return self._tasks.get(task_id)

    async def accept_job(self, record: TaskRecord, body: bytes, rank: JobRank, most_of_caller: int) -> None:
        await self.ping()
        if record.task_id in self._tasks:
            return
        if sum(entry.rank.caller == rank.caller for entry in self._jobs.values()) >= most_of_caller:
            raise QueueFull(f"you have {most_of_caller} open jobs", retry_after_s=10.0)
        self._tasks[record.task_id] = record
        self._job_count += 1
        self._jobs[f"{self._job_count}-0"] = _Entry(record.task_id, body, rank)
        self._wake()

    async def restore_job(self, record: TaskRecord, body: bytes, rank: JobRank) -> bool:
        await self.ping()
        kept = self._tasks.get(record.task_id)
        if kept and kept.state in ENDED:
            return False
        self._tasks.pop(record.task_id, None)
        await self.accept_job(record, body, rank, len(self._jobs) + 1)
        return True

    async def open_jobs(self) -> set[str]:
        await self.ping()
        return {entry.task_id for entry in self._jobs.values()}

    async def become_restorer(self, name: str, lease_s: float) -> bool:
        await self.ping()
        free = self.now_s() >= self._restorer_until_s
        if free:
            self._restorer_until_s = self.now_s() + lease_s
        return free

    async def waiting_jobs(self, idle_s: float) -> tuple[str, list[WaitingJob]]:
        await self.ping()
        waiting = [
            WaitingJob(entry_id, entry.rank, entry.deliveries)
            for entry_id, entry in self._jobs.items()
            if self._is_free(entry, idle_s)
        ]
        return str(self._job_count), waiting

    async def wait_for_job(self, after: str, block_s: float) -> None:
        await self.ping()
        ends_s = self.now_s() + min(block_s, 2.0)
        while self._job_count <= int(after) and (left_s := ends_s - self.now_s()) > 0:
            await self._change(left_s)

    async def claim_job(self, consumer: str, entry_id: str, idle_s: float) -> Job | None:
        await self.ping()
        entry = self._jobs.get(entry_id)
        if entry is None or not self._is_free(entry, idle_s):
            return None
        entry.consumer, entry.touched_s = consumer, self.now_s()
        entry.deliveries += 1
        return Job(entry_id, entry.task_id, entry.body, entry.deliveries)

    def _is_free(self, entry: _Entry, idle_s: float) -> bool:
        return not entry.consumer or self.now_s() - entry.touched_s >= idle_s

    async def renew_job(self, consumer: str, job: Job, record: TaskRecord | None = None) -> None:
        await self.ping()
        entry = self._jobs.get(job.entry_id)
        if entry is None or entry.consumer != consumer:
            raise NotFound(f"job '{job.task_id}' is no longer with '{consumer}'; stop working on it")
        entry.touched_s = self.now_s()
        if record:
            self._tasks[record.task_id] = record

    async def end_job(self, consumer: str, job: Job, record: TaskRecord, dead_reason: str = "") -> bool:
        await self.ping()
        entry = self._jobs.get(job.entry_id)
        if entry is None or entry.consumer != consumer:
            return False
        del self._jobs[job.entry_id]
        self._tasks[record.task_id] = record
        if dead_reason:
            self.dead.append((job.task_id, dead_reason))
        return True

    async def cancel_job(self, record: TaskRecord) -> bool:
        await self.ping()
        found = [entry_id for entry_id, entry in self._jobs.items() if entry.task_id == record.task_id]
        for entry_id in found:
            del self._jobs[entry_id]
            self._tasks[record.task_id] = record
        return bool(found)

    async def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        await self.ping()
        self._outcomes += outcomes
        self._wake()

    async def read_outcomes(self, after: str, count: int, block_s: float) -> tuple[str, list[Outcome]]:
        await self.ping()
        start = len(self._outcomes) if after == "$" else int(after.split("-", maxsplit=1)[0])
        if start == len(self._outcomes) and block_s > 0:
            await self._change(block_s)
        found = self._outcomes[start : start + count]
        return f"{start + len(found)}-0", found

    async def save_policy(self, name: str, snapshot: bytes) -> None:
        await self.ping()
        self._policies[name] = snapshot

    async def load_policy(self, name: str) -> bytes | None:
        await self.ping()
        return self._policies.get(name)

    async def append_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        await self.ping()
        self._decisions.extend(decisions)

    async def decisions(self, count: int) -> list[DecisionRecord]:
        await self.ping()
        return list(reversed(self._decisions))[:count]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, block_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(block_s, 2.0))
