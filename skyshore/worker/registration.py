"""Keeps a node in the registry: renews its lease every second and removes it at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from skyshore.domain.node import Node, NodeStatus
from skyshore.ports import StateStore
from skyshore.runtime.endure import DEPENDENCY_FAILED, for_ever, why

log = structlog.get_logger()

LEASE_S = 3.0
EVERY_S = 1.0
STOP_TIMEOUT_S = 0.75
"""Longest time that a stopping process waits for the store. A lease that is not removed expires."""


class Registration:
    """Reports to the store. During an outage of the store the node continues."""

    def __init__(self, node: Node, report: Callable[[], NodeStatus], store: StateStore) -> None:
        self._node, self._report, self._store = node, report, store
        self._registered = False

    async def renew(self, within_s: float = LEASE_S) -> None:
        """Report once. Raises StoreUnavailable, StoreBusy, TimeoutError."""
        async with asyncio.timeout(within_s):
            await self._store.register_node(self._node, self._report(), LEASE_S)
        if not self._registered:
            self._registered = True
            log.info("registered", node=self._node.node_id, arms=[arm.arm_id for arm in self._node.arms])

    async def renew_forever(self) -> None:
        """Report every second until cancelled. A slow report does not delay the next ones."""
        await for_ever("registration", self._renew_in_turn)

    async def _renew_in_turn(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + EVERY_S
        await self.renew()
        await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def announce_draining(self) -> None:
        """Report once more before the end. If the store is away, only the log says so."""
        await self._once("draining", self.renew(STOP_TIMEOUT_S))

    async def withdraw(self) -> None:
        """Remove the lease. If the store is away, the lease expires."""
        await self._once("withdrawing", self._store.remove_node(self._node.node_id))

    async def _once(self, what: str, call: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await call
        except DEPENDENCY_FAILED as error:
            log.warning("the state store was not told; the lease expires by itself", what=what, **why(error))


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
