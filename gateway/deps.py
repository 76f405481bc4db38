"""The connections that the gateway needs. Tests pass their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gateway.settings import GatewaySettings
from skyshore.domain.outcome import Outcome
from skyshore.ports import ProfilerClient, SchedulerClient, StateStore, WorkerClient


class PolicyClient(SchedulerClient, Protocol):
    """A scheduler client that also takes outcomes, and reads and changes the active policy."""

    async def report_outcome(self, outcome: Outcome) -> None:
        """Send an outcome directly, without the state store."""
        ...

    async def policy(self) -> tuple[str, tuple[str, ...]]:
        """Name of the active policy, and the names of all policies."""
        ...

    async def set_policy(self, name: str) -> None:
        """Change the active policy. Raises NotFound for an unknown name."""
        ...


class Workers(Protocol):
    """Clients of nodes by address."""

    def client(self, address: str) -> WorkerClient:
        """The client of the node at `address`, host:port."""
        ...

    async def keep(self, addresses: Collection[str]) -> None:
        """Close idle clients of all other addresses."""
        ...

    def busy(self) -> set[str]:
        """Addresses with open calls."""
        ...

    async def give_up(self, address: str) -> None:
        """Fail the open calls on that node with `NodeUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Deps:
    """Open connections. The code that opened them closes them."""

    settings: GatewaySettings
    store: StateStore
    profiler: ProfilerClient
    scheduler: PolicyClient
    workers: Workers
