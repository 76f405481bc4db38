"""What the gateway is made of; tests hand in their own parts through the same door."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gateway.settings import GatewaySettings
from skyshore.domain.outcome import Outcome
from skyshore.ports import ProfilerClient, SchedulerClient, StateStore, WorkerClient


class PolicyClient(SchedulerClient, Protocol):
    """A scheduler client that also takes outcomes, and can say and change which policy is in force."""

    async def report_outcome(self, outcome: Outcome) -> None:
        """Tell what came of a task, past the state store."""
        ...

    async def policy(self) -> tuple[str, tuple[str, ...]]:
        """The policy in force, and all there are."""
        ...

    async def set_policy(self, name: str) -> None:
        """Put another policy in force. Raises NotFound for an unknown one."""
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
        """Addresses with calls under way."""
        ...

    async def give_up(self, address: str) -> None:
        """Fail the calls under way there with `NodeUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Deps:
    """Open connections, closed by whoever opened them."""

    settings: GatewaySettings
    store: StateStore
    profiler: ProfilerClient
    scheduler: PolicyClient
    workers: Workers
