"""One run of the rank processes: from the first connection to the first failure.

The session decides who may join, which ranks work on which job and when all is over; `group` starts and stops the
processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from cloud_node.dsp.messages import Message, encode_message
from skyshore.domain import errors
from skyshore.domain.errors import Internal, NodeUnavailable, SkyshoreError

_FATAL = ("NodeUnavailable", "DeadlineExceeded")
"""Errors of a rank whose peer failed. The rank leaves, because its process group cannot be used again."""


@dataclass(slots=True)
class Member:
    """A connected rank."""

    rank: int
    pid: int
    writer: asyncio.StreamWriter
    ready: bool = False


@dataclass(slots=True)
class RankJob:
    """A job that runs on some ranks; it ends when all of them have replied."""

    number: int
    ranks: tuple[int, ...]
    stalls_at_s: float
    answer: asyncio.Future[NDArray[Any]]
    waiting: set[int] = field(default_factory=set)
    result: NDArray[Any] | None = None
    failure: SkyshoreError | None = None


class RankSession:
    """The connected ranks and their jobs. Create it inside a running event loop."""

    def __init__(self, size: int, token: str, run: str | None, stall_s: float) -> None:
        """`run` is the name of the launch that ranks must give; None accepts the one that the first rank gives."""
        self._size, self._token, self._run, self._stall_s = size, token, run, stall_s
        self._members: dict[int, Member] = {}
        self._jobs: dict[int, RankJob] = {}
        self._free: set[int] = set()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = loop.create_future()
        self.broken: asyncio.Future[str] = loop.create_future()

    @property
    def pids(self) -> list[int]:
        """Processes of the connected ranks."""
        return [member.pid for member in self._members.values()]

    @property
    def busy(self) -> int:
        """Ranks at work."""
        return self._size - len(self._free) if self.ready.done() else 0

    def admit(self, hello: Mapping[str, Any], writer: asyncio.StreamWriter) -> Member:
        """Accept a rank.

        Raises:
            NodeUnavailable: it does not belong to this group. A wrong world size ends the session.
        """
        if hello.get("token") != self._token:
            raise NodeUnavailable("wrong token")
        run = str(hello["run"])
        if self._run is not None and run != self._run:
            raise NodeUnavailable(f"this rank belongs to run {run}, the group is in run {self._run}")
        rank, world_size = int(hello["rank"]), int(hello["world_size"])
        if world_size != self._size:
            reason = (
                f"rank {rank} comes from a world of {world_size}, this group has {self._size} ranks; start that many"
            )
            self.fail(reason)
            raise NodeUnavailable(reason)
        if rank in self._members or not 0 <= rank < self._size:
            raise NodeUnavailable(f"rank {rank} is connected already, or out of range")
        self._run = run
        self._members[rank] = Member(rank, int(hello["pid"]), writer)
        return self._members[rank]

    def receive(self, member: Member, message: Message) -> None:
        """Handle a message of a rank."""
        if message.head.get("ready"):
            member.ready = True
            if len(self._members) == self._size and all(other.ready for other in self._members.values()):
                self._free = set(self._members)
                self.ready.set_result(self._run or "")
            return
        job = self._jobs.get(int(message.head["job"]))
        if job is None or member.rank not in job.waiting:
            self.fail(f"rank {member.rank} answered a job that it did not get")
            return
        job.waiting.discard(member.rank)
        if message.head.get("error") in _FATAL:
            self.fail(f"rank {member.rank}: {message.head['message']}")
            return
        if "error" in message.head:
            job.failure = _error(message.head)
        elif message.array is not None:
            job.result = message.array
        if not job.waiting:
            self._finish(job)

    def fail(self, reason: str) -> None:
        """End this session: its jobs fail with `NodeUnavailable`, its connections are closed."""
        if self.broken.done():
            return
        self.broken.set_result(reason)
        for job in self._jobs.values():
            if not job.answer.done():
                job.answer.set_exception(NodeUnavailable(f"{reason}; the group is being rebuilt"))
        for member in self._members.values():
            member.writer.transport.abort()
        self._changed.set()

    def next_stall_s(self) -> float | None:
        """Loop time at which the oldest job counts as stalled; None without jobs."""
        return min((job.stalls_at_s for job in self._jobs.values()), default=None)

    async def run(
        self, number: int, request: Mapping[str, Any], parts: Sequence[NDArray[Any]], timeout_s: float
    ) -> NDArray[Any]:
        """Give each of `len(parts)` free ranks its part, and wait for the answer.

        Jobs start in the order of their calls, so a job that needs many ranks does not starve. Ranks whose caller was
        cancelled stay busy until they reply or stall.

        Raises:
            NodeUnavailable: a rank died or stalled.
            SkyshoreError: the error that the ranks reported.
        """
        ranks = await self._acquire(len(parts))
        loop = asyncio.get_running_loop()
        head = {
            "job": number,
            "ranks": list(ranks),
            "timeout_s": min(timeout_s, self._stall_s),
            "request": dict(request),
        }
        job = RankJob(number, ranks, loop.time() + self._stall_s, loop.create_future(), set(ranks))
        self._jobs[number] = job
        writers = [self._members[rank].writer for rank in ranks]
        # All parts are written before the first wait: a cancelled caller leaves no rank without its part.
        for writer, part in zip(writers, parts, strict=True):
            writer.writelines(encode_message(Message(head, part)))
        try:
            for writer in writers:
                await writer.drain()
        except ConnectionError:
            self.fail(f"a rank of {ranks} closed its connection")
        return await job.answer

    async def _acquire(self, count: int) -> tuple[int, ...]:
        async with self._turn:
            while len(self._free) < count and not self.broken.done():
                self._changed.clear()
                await self._changed.wait()
            if self.broken.done():
                raise NodeUnavailable(f"{self.broken.result()}; the group is being rebuilt")
            ranks = tuple(sorted(self._free)[:count])
            self._free.difference_update(ranks)
            return ranks

    def _finish(self, job: RankJob) -> None:
        del self._jobs[job.number]
        self._free.update(job.ranks)
        self._changed.set()
        if job.answer.done():
            return
        if job.failure is not None:
            job.answer.set_exception(job.failure)
        elif job.result is not None:
            job.answer.set_result(job.result)
        else:
            job.answer.set_exception(Internal("no rank of the job returned an answer"))


def _error(head: Mapping[str, Any]) -> SkyshoreError:
    """The error a rank reported, of its own class if that is a domain error."""
    kind = getattr(errors, str(head["error"]), Internal)
    known = isinstance(kind, type) and issubclass(kind, SkyshoreError)
    return kind(str(head["message"])) if known else Internal(str(head["message"]))
