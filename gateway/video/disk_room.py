"""Room for files: a reserve of the disk, a bound for all files, and a quota for each caller.

The reserve is never given to uploads. The state store, the logs and the results of accepted clips live on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from skyshore.domain.errors import DiskFull, QuotaExceeded
from skyshore.runtime import telemetry
from skyshore.runtime.disk import RETRY_AFTER_S

SCAN_EVERY_S = 5.0
"""Longest age of what is known of the files on disk."""
OWNER_HEX = 12


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Limits in bytes."""

    reserve_bytes: int
    """Free bytes that uploads leave on the disk."""
    all_bytes: int
    """All uploads and results together."""
    caller_bytes: int
    """Uploads and results of one caller."""


@dataclass(slots=True)
class Claim:
    """Room that is promised to one file. `check` is called before each block of it is written."""

    room: DiskRoom
    owner: str
    path: Path
    promised_bytes: int
    written_bytes: int = 0

    def check(self, written_bytes: int) -> None:
        """Say that the file will have this size after the next block. Raises DiskFull, QuotaExceeded."""
        self.promised_bytes = max(self.promised_bytes, written_bytes)
        self.room.check(self.owner)
        self.written_bytes = written_bytes


class DiskRoom:
    """Promises room before it is used. What lies on disk is counted from the folders, so a restart forgets nothing."""

    def __init__(self, uploads: Path, results: Path, limits: DiskLimits) -> None:
        self._uploads, self._results, self._limits = uploads, results, limits
        self._claims: list[Claim] = []
        self._used: Counter[str] = Counter()
        """Bytes on disk by owner; the empty owner has the files without an owner."""
        self._scanned_at_s = float("-inf")
        self._scanning = asyncio.Lock()

    @asynccontextmanager
    async def claim(self, owner: str, path: Path, expected_bytes: int) -> AsyncIterator[Claim]:
        """Promise room to `path` inside the block; 0 expected bytes if its size is unknown.

        Raises:
            QuotaExceeded: the caller's files take too much room.
            DiskFull: the disk has no room beyond its reserve.
        """
        await self._scan()
        claim = Claim(self, owner, path, expected_bytes)
        self._claims.append(claim)
        try:
            self.check(owner)
            yield claim
            self._used[owner] += claim.written_bytes
        finally:
            self._claims.remove(claim)

    def check(self, owner: str) -> None:
        """Raises QuotaExceeded or DiskFull if what is promised has no room."""
        limits = self._limits
        promised = sum(claim.promised_bytes for claim in self._claims)
        own = sum(claim.promised_bytes for claim in self._claims if claim.owner == owner)
        if owner and self._used[owner] + own > limits.caller_bytes:
            raise QuotaExceeded(
                f"your clips and their results may take {limits.caller_bytes} bytes; "
                "send a smaller clip, or wait until older ones are deleted after a day",
                retry_after_s=RETRY_AFTER_S,
            )
        room = min(limits.all_bytes - self._used.total() - promised, self._free_bytes())
        if room < 0:
            raise DiskFull(
                "the server has no room for this clip; send a smaller one, or try again when older ones were deleted",
                retry_after_s=RETRY_AFTER_S,
            )
        telemetry.DISK_FREE.set(room)

    def _free_bytes(self) -> int:
        """Bytes that are neither used, nor promised, nor in the reserve."""
        disk = os.statvfs(self._uploads)
        to_come = sum(claim.promised_bytes - claim.written_bytes for claim in self._claims)
        return disk.f_bavail * disk.f_frsize - self._limits.reserve_bytes - to_come

    async def _scan(self) -> None:
        async with self._scanning:
            if time.monotonic() - self._scanned_at_s < SCAN_EVERY_S:
                return
            unfinished = {claim.path.name for claim in self._claims}
            self._used = await asyncio.to_thread(_used_bytes, self._uploads, self._results, unfinished)
            self._scanned_at_s = time.monotonic()


def owner_of(caller: str) -> str:
    """The part of a file's name that says whose it is: callers are not named on disk."""
    return hashlib.sha256(caller.encode()).hexdigest()[:OWNER_HEX]


def upload_name(owner: str, task_id: str) -> str:
    """File name of an upload."""
    return f"{owner}-{task_id}"


def owner_of_upload(name: str) -> str:
    """The owner in the file name of an upload; empty if it has none."""
    return name.partition("-")[0] if "-" in name else ""


def _used_bytes(uploads: Path, results: Path, unfinished: set[str]) -> Counter[str]:
    """Bytes by owner. A result belongs to the owner of its upload."""
    used: Counter[str] = Counter()
    owners: dict[str, str] = {}
    for name, size_bytes in _sizes(uploads):
        owner = owner_of_upload(name)
        owners[name.partition("-")[2]] = owner
        if name not in unfinished:
            used[owner] += size_bytes
    for name, size_bytes in _sizes(results):
        if name not in unfinished:
            used[owners.get(name.partition(".")[0], "")] += size_bytes
    return used


def _sizes(folder: Path) -> list[tuple[str, int]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found.append((entry.name, entry.stat().st_size))
            except FileNotFoundError:
                continue  # another process deleted it
    return found
