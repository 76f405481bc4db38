"""Tells callers that their clips have ended: a signed POST to the URL that came with the clip, tried again if it fails.

Each webhook is a file until it is delivered or given up, so it survives its gateway. It is delivered at least once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import structlog

from gateway.video.webhook_rules import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    AllowedHosts,
    WebhookTarget,
    signature,
    wait_s,
)
from skyshore.domain.errors import PermissionDenied
from skyshore.domain.job import ENDED, TaskRecord
from skyshore.ports import StateStore
from skyshore.runtime import telemetry
from skyshore.runtime.disk import write_atomically
from skyshore.runtime.endure import DEPENDENCY_FAILED, for_ever, why

log = structlog.get_logger()

SENDERS = 8
"""Webhooks that are sent at the same time."""
MOST_DUE = 10_000
TIMEOUT_S = 10.0
SCAN_EVERY_S = 30.0
STALE_S = 150.0
"""A file without a change for this long has lost its gateway. Longer than the longest wait between two tries."""


class Webhooks:
    """Keeps and sends webhooks."""

    def __init__(
        self,
        store: StateStore,
        folder: Path,
        allowed: AllowedHosts,
        secret: str,
        show: Callable[[TaskRecord], dict[str, Any]],
    ) -> None:
        """`show` makes the body of a record, as `GET /v1/tasks/{id}` does."""
        self._store, self._folder, self._allowed, self._secret, self._show = store, folder, allowed, secret, show
        self._due: asyncio.Queue[str] = asyncio.Queue(MOST_DUE)

    def check(self, url: str) -> None:
        """Raises InvalidTask or PermissionDenied if a webhook may not go to `url`."""
        self._allowed.check(url)

    def keep(self, task_id: str, url: str) -> None:
        """Remember the webhook of a task, before the task is accepted. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(task_id, url, 0)

    def drop(self, task_id: str) -> None:
        """The task was not accepted, or its webhook is done. Blocks."""
        self._path(task_id).unlink(missing_ok=True)

    def ended(self, task_id: str) -> None:
        """The task has ended: send its webhook, if it has one."""
        if not self._due.full():  # else the next scan finds it
            self._due.put_nowait(task_id)

    async def run(self) -> None:
        """Send until cancelled."""
        # Redirects are not followed, and proxies of the environment not used: the address that was checked is the one.
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(for_ever("webhooks", self._scan, SCAN_EVERY_S))
            for _ in range(SENDERS):
                group.create_task(self._send_due(client))

    async def _scan(self) -> None:
        """Find webhooks whose gateway died."""
        for task_id in await asyncio.to_thread(self._stale):
            await self._due.put(task_id)

    def _stale(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        before_s = time.time() - STALE_S
        return [path.stem for path in self._folder.glob("*.json") if path.stat().st_mtime < before_s]

    async def _send_due(self, client: httpx.AsyncClient) -> None:
        while True:
            task_id = await self._due.get()
            try:
                await self._send_once(client, task_id)
            except DEPENDENCY_FAILED as error:  # the disk or the store; the file stays, and a scan finds it
                log.warning("webhook waits", task_id=task_id, **why(error))

    async def _send_once(self, client: httpx.AsyncClient, task_id: str) -> None:
        kept = await asyncio.to_thread(self._read, task_id)
        record = await self._store.task(task_id) if kept else None
        if kept is None or record is None:
            await asyncio.to_thread(self.drop, task_id)
            return
        if record.state not in ENDED:
            return
        url, tries = kept["url"], kept["tries"] + 1
        await asyncio.to_thread(self._write, task_id, url, tries)
        failure = await self._post(client, url, orjson.dumps(self._show(record)))
        again_s = wait_s(tries) if failure else None
        telemetry.WEBHOOKS.labels("delivered" if not failure else "failed" if again_s else "given_up").inc()
        if again_s is not None:
            log.warning("webhook failed and is tried again", task_id=task_id, reason=failure, tries=tries)
            asyncio.get_running_loop().call_later(again_s, self.ended, task_id)
            return
        if failure:
            log.error("webhook given up", task_id=task_id, reason=failure, tries=tries)
        await asyncio.to_thread(self.drop, task_id)

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes) -> str:
        """Send it once. Returns why it failed; empty for a success."""
        try:
            target = self._allowed.check(url)  # the list may be another one since the clip was accepted
            address = self._allowed.choose(await _addresses(target))
            if address is None:
                return "its host has no public address, and its address is not allowed"
            request = self._request(client, target, address, body)
            response = await client.send(request, stream=True)
            await response.aclose()  # the body is not read: it can be of any size
        except PermissionDenied as error:
            return error.message
        except (httpx.HTTPError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return "" if response.is_success else f"status {response.status_code}"

    def _request(self, client: httpx.AsyncClient, target: WebhookTarget, address: str, body: bytes) -> httpx.Request:
        """To the address that was checked, not to what the name leads to a moment later; TLS checks the name."""
        host = f"[{address}]" if ":" in address else address
        default = {"http": 80, "https": 443}[target.scheme]
        named = f"[{target.host}]" if ":" in target.host else target.host
        timestamp = str(int(time.time()))
        return client.build_request(
            "POST",
            f"{target.scheme}://{host}:{target.port}{target.path}",
            content=body,
            headers={
                "host": named if target.port == default else f"{named}:{target.port}",
                "content-type": "application/json",
                TIMESTAMP_HEADER: timestamp,
                SIGNATURE_HEADER: signature(self._secret, timestamp, body),
            },
            extensions={"sni_hostname": target.host},
        )

    def _read(self, task_id: str) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = orjson.loads(self._path(task_id).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            log.error("the file of a webhook cannot be read; it is deleted", task_id=task_id)
            return None
        return kept

    def _write(self, task_id: str, url: str, tries: int) -> None:
        write_atomically(self._path(task_id), orjson.dumps({"url": url, "tries": tries}))

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.json"


async def _addresses(target: WebhookTarget) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
