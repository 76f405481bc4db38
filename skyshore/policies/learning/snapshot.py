"""Learned figures as bytes: named arrays with the format's name, no pickle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FORMAT = "format"


def pack(kind: str, arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays → bytes. `kind` names policy and version; `unpack` expects the same."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{FORMAT: np.array(kind)}, **arrays)  # type: ignore[arg-type] # stubs: bool for one name
    return buffer.getvalue()


def join_parts(parts: Sequence[bytes]) -> bytes:
    """Several snapshots as one; each is preceded by its length (4 bytes, big-endian)."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def split_parts(data: bytes, number: int) -> list[bytes]:
    """Undo `join_parts`. Raises ValueError when there are not `number` parts."""
    parts, rest = [], data
    while rest:
        size = int.from_bytes(rest[:4], "big")
        parts.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    if len(parts) != number:
        raise ValueError(f"a snapshot of {len(parts)} parts, not of {number}")
    return parts


def unpack(kind: str, data: bytes) -> dict[str, NDArray[np.generic]]:
    """Bytes → arrays.

    Raises:
        ValueError: not written by `pack` for this `kind`.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a snapshot: {error}") from error
    found = str(arrays.pop(FORMAT, ""))
    if found != kind:
        raise ValueError(f"a snapshot of '{found}', not of '{kind}'")
    return arrays
