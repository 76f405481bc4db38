"""Keeps a node in the registry: renews its lease every second and removes it at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from skyshore.domain.errors import NodeUnavailable
from skyshore.domain.node import Node, NodeStatus
from skyshore.ports import StateStore

log = structlog.get_logger()

LEASE_S = 3.0
EVERY_S = 1.0
STOP_TIMEOUT_S = 0.75
"""Longest time that a stopping process waits for the store. A lease that is not removed expires."""


class Registration:
    """Reports to the store. During an outage of the store the node continues; start and end are logged."""

    def __init__(self, node: Node, report: Callable[[], NodeStatus], store: StateStore) -> None:
        self._node, self._report, self._store = node, report, store
        self._reached: bool | None = None

    async def renew(self, within_s: float = LEASE_S) -> None:
        """Report once. Does not raise if the store is away."""
        try:
            async with asyncio.timeout(within_s):
                await self._store.register_node(self._node, self._report(), LEASE_S)
        except (NodeUnavailable, TimeoutError) as error:
            self._note(False, str(error) or "no answer from the state store")
        else:
            self._note(True, "")

    async def renew_forever(self) -> None:
        """Report every second until cancelled. A slow report does not delay the next ones."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            await self.renew()
            due_s = max(due_s + EVERY_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def withdraw(self) -> None:
        """Remove the lease. If the store is away, the lease expires."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._store.remove_node(self._node.node_id)
        except (NodeUnavailable, TimeoutError) as error:
            self._note(False, str(error) or "no answer from the state store")

    def _note(self, reached: bool, why: str) -> None:
        if reached == self._reached:
            return
        self._reached = reached
        if reached:
            log.info("registered", node=self._node.node_id, arms=[arm.arm_id for arm in self._node.arms])
        else:
            log.warning("the state store is away; the node continues and tries again", why=why)


@asynccontextmanager
async def registered(node: Node, report: Callable[[], NodeStatus], store: StateStore) -> AsyncIterator[Registration]:
    """Renew the lease inside the block and remove it at its end."""
    registration = Registration(node, report, store)
    async with asyncio.TaskGroup() as group:
        renewing = group.create_task(registration.renew_forever(), name="registration")
        try:
            yield registration
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])  # a running report must not arrive after the removal
            await registration.withdraw()
