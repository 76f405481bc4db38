"""What a failing disk means: the errors of its files as domain errors, and files that are whole or absent."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyshore.domain.errors import DiskFull, DiskUnavailable, SkyshoreError

RETRY_AFTER_S = 60.0
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNAVAILABLE = {
    errno.EIO: "the disk cannot be read or written",
    errno.EACCES: "the server may not write to its folder",
    errno.EPERM: "the server may not write to its folder",
    errno.EROFS: "the disk is read-only",
    errno.ENOENT: "a folder or file of the server is missing",
    errno.ENOTDIR: "a folder of the server is missing",
    errno.ESTALE: "the network disk went away",
    errno.ENODEV: "the disk went away",
    errno.ENXIO: "the disk went away",
    errno.EMFILE: "the server has too many files open",
    errno.ENFILE: "the machine has too many files open",
}


def as_disk_error(error: BaseException) -> SkyshoreError | None:
    """The domain error of a failed file operation; None if it is none. Other libraries' errors carry `errno`, too."""
    number = getattr(error, "errno", None)
    if number in FULL:
        return DiskFull("the disk of the server is full; try again later", retry_after_s=RETRY_AFTER_S)
    if number in _UNAVAILABLE:
        return DiskUnavailable(f"{_UNAVAILABLE[number]}; its operator has to repair that", retry_after_s=RETRY_AFTER_S)
    return None


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise the errors of the disk inside the block as DiskFull or DiskUnavailable."""
    try:
        yield
    except Exception as error:
        if failure := as_disk_error(error):
            raise failure from error
        raise


def write_atomically(target: Path, data: bytes) -> None:
    """Write a file completely or not at all, even if the power fails. Raises OSError and leaves no part of it."""
    partial = target.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
