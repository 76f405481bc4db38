"""The connections to the server: bounded, reconnecting, and with every failure as a domain error."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as LostConnection

from skyshore.adapters.redis_store import schema
from skyshore.adapters.redis_store.failures import FAILURES, UNREADABLE, as_domain, is_failure, is_wrong_type
from skyshore.runtime import telemetry

log = structlog.get_logger()

SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 1.0
CONNECTIONS = 16
RETRIES = 3
"""Retries after a lost connection, about half a second in all; then the call raises. A server that is silent for
`SOCKET_TIMEOUT_S` is not asked again: the caller should know soon."""

EntryT = TypeVar("EntryT")
ValueT = TypeVar("ValueT")


class StoreConnection:
    """One pool of connections. Use `redis` inside `answers` only."""

    def __init__(self, url: str) -> None:
        """`url` as redis-py reads it, for example redis://127.0.0.1:6379/0. Nothing is sent yet.

        Raises:
            ValueError: the URL cannot be read.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_TIMEOUT_S,
            protocol=2,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(
                ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=RETRIES, supported_errors=(LostConnection,)
            ),
        )
        where = pool.connection_kwargs
        self._where = f"{where.get('host', where.get('path', ''))}:{where.get('port', '')}".rstrip(":")
        self._unreadable: set[str] = set()
        """Kinds of data of which an entry could not be read the last time."""
        self.redis: Redis = Redis.from_pool(pool)

    @asynccontextmanager
    async def answers(self, *strings: str) -> AsyncIterator[None]:
        """Raise every failure of a command as a domain error, and a cancellation that the client missed.

        `strings` are the keys that the commands read as strings. A key of a wrong type is renamed, so that the next
        try finds none: nothing is lost, and nothing fails for ever.

        Raises:
            StoreUnavailable: the server does not answer, or refuses the command.
            StoreBusy: all connections are in use.
        """
        task = asyncio.current_task()
        asked_before = task.cancelling() if task else 0
        try:
            yield
        except Exception as error:
            if not is_failure(error):
                raise
            if is_wrong_type(error):
                await self._set_aside(dict.fromkeys(strings, b"string"))
            raise as_domain(error, self._where) from error
        # redis-py sends through asyncio.wait_for, which before Python 3.12 drops a cancellation that meets its result.
        if task and task.cancelling() > asked_before:
            raise asyncio.CancelledError

    def readable(self, kind: str, decode: Callable[[EntryT], ValueT], entries: Iterable[EntryT]) -> list[ValueT]:
        """The decoded entries. Those that cannot be decoded are left out and counted, and the first one is logged."""
        good, why = [], ""
        for entry in entries:
            try:
                good.append(decode(entry))
            except UNREADABLE as error:
                telemetry.STORE_UNREADABLE.labels(kind).inc()
                why = f"{type(error).__name__}: {error}"[:300]
        if why and kind not in self._unreadable:
            log.error("the state store has data that cannot be read; it is left out", kind=kind, why=why)
        (self._unreadable.add if why else self._unreadable.discard)(kind)
        return good

    async def _set_aside(self, strings: dict[str, bytes]) -> None:
        """Rename the keys that have another type than `strings` and `COLLECTIONS` say. They expire after a week."""
        expected = schema.COLLECTIONS | strings
        try:
            for key, type_ in expected.items():
                found: Any = await self.redis.type(key)
                if found in (type_, b"none"):
                    continue
                aside = f"{schema.SET_ASIDE}{key.removeprefix(schema.PREFIX)}:{uuid.uuid4().hex[:8]}"
                await self.redis.rename(key, aside)
                await self.redis.expire(aside, schema.SET_ASIDE_S)
                log.error("a key had a wrong type and was renamed", key=key, type=found.decode(), renamed_to=aside)
        except FAILURES as error:
            log.warning("keys of a wrong type could not be renamed", why=str(as_domain(error, self._where)))
