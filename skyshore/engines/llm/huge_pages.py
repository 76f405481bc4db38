"""Weights on huge pages: a decode run reads all weights, and each small page costs an address look-up.

Linux uses huge pages only on request (`transparent_hugepage=madvise`, the common setting), and ONNX
Runtime does not ask. Without them, only the speed differs.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

Range = tuple[int, int]
"""Addresses first..last of a mapping, the last one excluded."""

HUGE_PAGE_BYTES: Final = 2 << 20
_SMAPS: Final = Path("/proc/self/smaps")
_HEADER: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")
_RESIDENT_SHARE: Final = 0.9
"""Huge pages would only grow mappings that are less full, such as thread stacks."""
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25


def filled_memory() -> list[Range]:
    """Anonymous private mappings of this process that are written nearly throughout; none but on Linux."""
    return list(_parse(_SMAPS.read_text(encoding="utf-8"))) if _SMAPS.is_file() else []


def _parse(smaps: str) -> Iterator[Range]:
    mapping: Range | None = None
    for line in smaps.splitlines():
        if header := _HEADER.match(line):
            first, last, rights, inode, name = header.groups()
            anonymous = rights == "rw-p" and inode == "0" and (not name or name == "[heap]")
            mapping = (int(first, 16), int(last, 16)) if anonymous else None
        elif mapping and line.startswith("Rss:"):
            resident_bytes = int(line.split()[1]) * 1024
            if resident_bytes >= _RESIDENT_SHARE * (mapping[1] - mapping[0]):
                yield mapping


def new_ranges(before: Sequence[Range], after: Sequence[Range]) -> list[Range]:
    """What of `after` lies in none of `before`, cut to whole huge pages."""
    found = []
    for first, last in after:
        start = first
        for old_first, old_last in sorted(before):
            if old_last <= start or old_first >= last:
                continue
            found.append((start, old_first))
            start = old_last
        found.append((start, last))
    aligned = ((-(-first // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, last & -HUGE_PAGE_BYTES) for first, last in found)
    return [(first, last) for first, last in aligned if first < last]


def use_huge_pages(ranges: Sequence[Range]) -> int:
    """Ask for huge pages behind memory already written; returns the bytes for which the host agreed at once."""
    agreed = 0
    if not ranges:
        return agreed
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for first, last in ranges:
        madvise(first, last - first, _MADV_HUGEPAGE)  # kernels before 6.1 gather the pages later, by themselves
        if madvise(first, last - first, _MADV_COLLAPSE) == 0:
            agreed += last - first
    return agreed
