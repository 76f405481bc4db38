"""`MemoryStore`: the StateStore port within one process. The contract suite runs on it and on the real one alike."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from skyshore.domain.errors import NotFound, StoreUnavailable
from skyshore.domain.job import Job, TaskRecord, TaskState
from skyshore.domain.node import Link, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord


@dataclass
class _Entry:
    task_id: str
    body: bytes
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

    async def accept_job(self, record: TaskRecord, body: bytes) -> None:
        await self.ping()
        if record.task_id in self._tasks:
            return
        self._tasks[record.task_id] = record
        self._job_count += 1
        self._jobs[f"{self._job_count}-0"] = _Entry(record.task_id, body)
        self._wake()

    async def restore_job(self, record: TaskRecord, body: bytes) -> bool:
        await self.ping()
        kept = self._tasks.get(record.task_id)
        if kept and kept.state in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED):
            return False
        self._tasks.pop(record.task_id, None)
        await self.accept_job(record, body)
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

    async def claim_jobs(self, consumer: str, count: int, block_s: float, idle_s: float) -> list[Job]:
        await self.ping()
        jobs = self._claim(consumer, count, idle_s)
        if not jobs and block_s > 0:
            await self._change(block_s)
            jobs = self._claim(consumer, count, idle_s)
        return jobs

    def _claim(self, consumer: str, count: int, idle_s: float) -> list[Job]:
        now_s = self.now_s()
        free = [
            (entry_id, entry)
            for entry_id, entry in self._jobs.items()
            if not entry.consumer or now_s - entry.touched_s >= idle_s
        ]
        jobs = []
        for entry_id, entry in free[:count]:
            entry.consumer, entry.touched_s = consumer, now_s
            entry.deliveries += 1
            jobs.append(Job(entry_id, entry.task_id, entry.body, entry.deliveries))
        return jobs

    async def renew_job(self, consumer: str, job: Job) -> None:
        await self.ping()
        entry = self._jobs.get(job.entry_id)
        if entry is None or entry.consumer != consumer:
            raise NotFound(f"job '{job.task_id}' is no longer with '{consumer}'; stop working on it")
        entry.touched_s = self.now_s()

    async def finish_job(self, job: Job) -> None:
        await self.ping()
        self._jobs.pop(job.entry_id, None)

    async def move_to_dead_letters(self, job: Job, reason: str) -> None:
        await self.ping()
        if self._jobs.pop(job.entry_id, None):
            self.dead.append((job.task_id, reason))

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
