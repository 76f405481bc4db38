"""Runs SchedulerCore live: calls, leases and outcomes become events; its actions become answers and records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter

import structlog

from services.scheduler.journal import Journal
from services.scheduler.machine_code import MachineCode
from services.scheduler.watchers import DecisionWatchers
from skyshore.domain.errors import Internal, SkyshoreError
from skyshore.domain.node import Link, NodeReport, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.policies.registry import POLICIES
from skyshore.ports import StateStore
from skyshore.runtime import telemetry
from skyshore.runtime.endure import DEPENDENCY_FAILED, LONGEST_WAIT_S, for_ever, until_done
from skyshore.scheduling.actions import Action, Dispatch, Migrate, Reject, SaveState
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.events import (
    Event,
    LinkChanged,
    NodeLost,
    NodeReported,
    PolicyChanged,
    TaskArrived,
    TaskFailed,
    TaskFinished,
    Tick,
)

log = structlog.get_logger()

NODES_EVERY_S = 0.4
"""Period of reading leases; a node is reported lost at most this long after its lease ended."""
LEASE_S = 3.0
REGISTER_AGAIN_S = LEASE_S + LONGEST_WAIT_S
"""Time of the nodes after an outage: they ask again at the latest after `LONGEST_WAIT_S`."""
FLUSH_EVERY_S = 0.25
OUTCOMES_AT_ONCE = 500
_BAD_SNAPSHOT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""A policy should raise ValueError. A damaged snapshot may make one that is not ours raise any of the others."""


class SchedulerLoop:
    """Owns the core. It runs on one event loop, so events are handled one at a time."""

    def __init__(self, core: SchedulerCore, store: StateStore, journal: Journal, now_s: Callable[[], float]) -> None:
        self.watchers = DecisionWatchers()
        self._core, self._store, self._journal, self._now_s = core, store, journal, now_s
        self._machine_code = MachineCode(core)
        self._waiting: dict[str, asyncio.Future[Placement]] = {}
        """Tasks that wait for the core's answer."""
        self._alive: dict[str, Tier] = {}
        self._links: dict[tuple[str, str], Link] = {}
        """Node id, incarnation → measured link."""
        self._started = False
        self._cursor = "$"
        """Where to read on in the stream of outcomes."""
        self._epoch = 0.0
        """Of the registry; see `StateStore.registry_epoch`."""
        self._reachable = True
        """Whether the state store could be read and written when it was last asked for nodes."""
        self._outage_ended_s = float("-inf")

    @property
    def policy(self) -> str:
        """Name of the policy in force."""
        return self._core.policy_name

    # ------------------------------------------------------------------------------------------- calls

    async def place(self, task: Task, profile: TaskProfile, attempt: int, avoid: Sequence[str]) -> Placement:
        """Choose an arm.

        Raises:
            NodeUnavailable: no node is registered.
            NoFeasibleArm: no arm can serve the task.
            QueueFull: all arms that can are full.
        """
        answer: asyncio.Future[Placement] = asyncio.get_running_loop().create_future()
        earlier = self._waiting.get(task.task_id)
        if earlier is not None and not earlier.done():
            earlier.set_exception(Internal(f"task '{task.task_id}' asked for another placement meanwhile"))
        self._waiting[task.task_id] = answer
        started_s = perf_counter()
        try:
            self._handle(TaskArrived(self._now_s(), task, profile, attempt, tuple(avoid)))
            telemetry.DECISION_SECONDS.observe(perf_counter() - started_s)
            return await answer
        finally:
            if self._waiting.get(task.task_id) is answer:
                del self._waiting[task.task_id]

    async def set_policy(self, name: str) -> None:
        """Put a policy in force, with what it learned before. Raises NotFound for an unknown one."""
        if name not in POLICIES:
            self._handle(PolicyChanged(self._now_s(), name))  # raises the error that names the known ones
        await self._journal.flush_to_store()  # it may have been in force a moment ago
        snapshot = await self._store.load_policy(name) or b""
        await self._machine_code.before_change(name)
        self._restore(name, snapshot)
        log.info("policy changed", policy=name, snapshot_bytes=len(snapshot))

    async def report(self, outcome: Outcome) -> None:
        """Handle an outcome now and append it to the stream. Read back from the stream, it changes nothing."""
        self._ended(outcome)
        if self._reachable:
            with suppress(*DEPENDENCY_FAILED):
                await self._store.append_outcomes([outcome])

    # ------------------------------------------------------------------------------------------- running

    async def start(self) -> None:
        """Read the saved state, the nodes and the links. Raises StoreUnavailable, StoreBusy."""
        if self._started:
            return
        snapshot = await self._store.load_policy(self.policy)
        if snapshot:
            self._restore(self.policy, snapshot)
            log.info("policy restored", policy=self.policy, snapshot_bytes=len(snapshot))
        reports = await self._store.nodes()
        self._take_nodes(reports)
        self._take_links(reports, await self._store.links(list(self._alive)))
        self._started = True

    async def run(self) -> None:
        """Run until cancelled; then write what is queued."""
        try:
            await until_done("saved state", self.start)
            async with asyncio.TaskGroup() as group:
                group.create_task(for_ever("registry", self._look_at_nodes, NODES_EVERY_S, self._lost_sight))
                group.create_task(for_ever("outcomes", self._read_outcomes))
                group.create_task(for_ever("journal", self._journal.flush_to_store, FLUSH_EVERY_S))
                group.create_task(for_ever("event log", self._journal.flush_to_file, FLUSH_EVERY_S))
                group.create_task(self._tick())
                group.create_task(self._machine_code.run())
        finally:
            self._handle(Tick(self._now_s(), save=True))
            await self._journal.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._core.tick_every_s)
            self._handle(Tick(self._now_s()))

    async def _look_at_nodes(self) -> None:
        reports = await self._store.nodes()
        links = await self._store.links([node.node_id for node, _ in reports])
        try:
            epoch = await self._store.registry_epoch()
        except DEPENDENCY_FAILED:
            self._take_nodes(reports, complete=False)  # nodes whose lease still runs are there
            raise
        now_s = self._now_s()
        if not self._reachable:
            self._reachable, self._outage_ended_s = True, now_s
        if self._epoch not in (0.0, epoch):
            log.warning("the state store lost its data; nodes have time to register again", nodes=len(self._alive))
            self._outage_ended_s = now_s
            self._handle(Tick(now_s, save=True))  # what the policy learned is lost there, too
        self._epoch = epoch
        self._take_nodes(reports)
        self._take_links(reports, links)

    def _lost_sight(self, error: BaseException) -> None:
        """The store cannot be read, or nodes cannot renew their leases: the fleet stays as it was seen last."""
        self._reachable = False

    def _take_links(self, reports: Sequence[NodeReport], links: Mapping[str, Link]) -> None:
        """Report changed links to the core. A restarted node counts as new, and so does its link."""
        known, self._links = self._links, {}
        for node, _ in reports:
            link = links.get(node.node_id)
            if link is None:
                continue
            key = node.node_id, node.incarnation
            self._links[key] = link
            if known.get(key) != link:
                self._handle(LinkChanged(self._now_s(), node.node_id, link))

    def _take_nodes(self, reports: Sequence[NodeReport], *, complete: bool = True) -> None:
        """Report nodes to the core; if the registry is complete, also those that are lost."""
        now_s = self._now_s()
        seen = {node.node_id: node.tier for node, _ in reports}
        for node, status in reports:
            self._handle(NodeReported(now_s, node, status))
        # Leases ended while the store was away: after an outage, nodes get time to register again.
        if complete and now_s - self._outage_ended_s > REGISTER_AGAIN_S:
            for node_id in self._alive.keys() - seen.keys():
                log.warning("node lost", node_id=node_id)
                self._handle(NodeLost(now_s, node_id))
            self._alive = seen
        else:
            self._alive |= seen
        for tier in Tier:
            telemetry.NODES.labels(tier.value).set(sum(entry is tier for entry in self._alive.values()))

    async def _read_outcomes(self) -> None:
        self._cursor, outcomes = await self._store.read_outcomes(self._cursor, OUTCOMES_AT_ONCE, block_s=2.0)
        for outcome in outcomes:
            self._ended(outcome)

    # ------------------------------------------------------------------------------------------- events, actions

    def _ended(self, outcome: Outcome) -> None:
        end = TaskFinished if outcome.status is OutcomeStatus.OK else TaskFailed
        self._handle(end(self._now_s(), outcome))

    def _restore(self, name: str, snapshot: bytes) -> None:
        """Put a policy in force. If it cannot read its snapshot, log that and start without one."""
        try:
            self._handle(PolicyChanged(self._now_s(), name, snapshot))
        except _BAD_SNAPSHOT as error:
            log.warning("policy starts without its snapshot, which cannot be read", policy=name, why=repr(error))
            self._handle(PolicyChanged(self._now_s(), name))

    def _handle(self, event: Event) -> None:
        actions = self._core.handle(event)
        self._journal.note_event(event)
        for action in actions:
            self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Dispatch():
                self._decided(action, action.placement.task_id, action.placement)
            case Reject():
                self._decided(action, action.task_id, action.error)
            case Migrate():
                log.warning("task needs another node", task_id=action.task_id, node_id=action.node_id)
            case SaveState():
                self._journal.note_snapshot(action)

    def _decided(self, action: Dispatch | Reject, task_id: str, answer: Placement | SkyshoreError) -> None:
        self._journal.note_decision(action.record)
        self.watchers.publish(action.record)
        waiting = self._waiting.get(task_id)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, Placement):
            telemetry.DECISIONS.labels(answer.policy, "placed").inc()
            waiting.set_result(answer)
        else:
            telemetry.DECISIONS.labels(self.policy, answer.code).inc()
            waiting.set_exception(answer)
