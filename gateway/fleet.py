"""The fleet as the state store shows it, cached: at most two reads per second."""

from __future__ import annotations

import asyncio
import time

import structlog

from gateway.absence import Absences
from gateway.deps import Workers
from skyshore.domain.errors import NoFeasibleArm, NotFound
from skyshore.domain.node import Link, NodeReport
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore
from skyshore.runtime.endure import for_ever

log = structlog.get_logger()

FRESH_S = 0.5
WATCH_EVERY_S = 1.0

Fleet = list[NodeReport]


class FleetView:
    """Nodes with a valid lease."""

    def __init__(self, store: StateStore, workers: Workers) -> None:
        self._store, self._workers = store, workers
        self._fleet: Fleet = []
        self._links: dict[str, Link] = {}
        self._epoch = 0.0
        self._read_at_s = -FRESH_S
        self._lock = asyncio.Lock()

    async def nodes(self) -> Fleet:
        """All live nodes, at most `FRESH_S` old.

        Raises:
            StoreUnavailable: the store cannot be read, or nodes cannot renew their leases.
            StoreBusy: too many requests use the store.
        """
        async with self._lock:
            if time.monotonic() - self._read_at_s >= FRESH_S:
                self._fleet = await self._store.nodes()
                self._links = await self._store.links([node.node_id for node, _ in self._fleet])
                self._epoch = await self._store.registry_epoch()
                self._read_at_s = time.monotonic()
                await self._workers.keep({node.address for node, _ in self._fleet})
        return self._fleet

    async def check_offered(self, kind: TaskKind, model: str) -> None:
        """Refuse what no live node offers. An empty fleet refuses nothing: its nodes may only be on their way.

        Raises:
            NotFound: no node runs `model`; empty means any.
            NoFeasibleArm: no node does this kind of task.
            NodeUnavailable: the store is away.
        """
        arms = [arm for node, _ in await self.nodes() for arm in node.arms]
        if arms and kind not in {arm.kind for arm in arms}:
            raise NoFeasibleArm(f"no live node serves '{kind.value}'; start one that does", param="kind")
        if arms and model and model not in {arm.model for arm in arms if arm.kind is kind}:
            raise NotFound(f"no live node runs '{model}' for '{kind.value}'; see /v1/models", param="model")

    def joules_per_byte(self, node_id: str) -> float:
        """Joules per byte of a node's link, as its emulator models it and the last read showed it; 0 if unknown."""
        link = self._links.get(node_id)
        return link.joules_per_byte if link is not None else 0.0

    async def watch(self) -> None:
        """Fail the calls on nodes that are gone, so that they are tried on other nodes. Runs until cancelled."""
        absences = Absences()

        async def look() -> None:
            before = self._epoch
            leased = {node.address for node, _ in await self.nodes()}
            if before != self._epoch:
                absences.store_away()  # the store lost its data: it cannot tell which nodes are gone
            for address in absences.gone(time.monotonic(), leased, self._workers.busy()):
                log.warning("the node is gone; its calls fail", address=address)
                await self._workers.give_up(address)

        await for_ever("fleet", look, WATCH_EVERY_S, lambda error: absences.store_away())
