"""Which memory of a process the engine asks huge pages for."""

from __future__ import annotations

from skyshore.engines.llm.huge_pages import HUGE_PAGE_BYTES, _parse, new_ranges, use_huge_pages

MB = 1 << 20
SMAPS = """\
100000000-100400000 rw-p 00000000 00:00 0
Size:               4096 kB
Rss:                4096 kB
200000000-200800000 rw-p 00000000 00:00 0                                [stack]
Rss:                8192 kB
300000000-300800000 rw-p 00000000 00:00 0
Rss:                 132 kB
400000000-400800000 r--p 00000000 00:00 0
Rss:                8192 kB
500000000-500800000 rw-p 00000000 fe:00 1609                             /models/model.onnx.data
Rss:                8192 kB
600000000-600800000 rw-p 00000000 00:00 0                                [heap]
Rss:                8000 kB
"""


def test_only_memory_of_its_own_that_is_full_counts() -> None:
    assert list(_parse(SMAPS)) == [(0x100000000, 0x100400000), (0x600000000, 0x600800000)]


def test_what_was_there_before_is_left_alone_and_ends_are_cut_to_huge_pages() -> None:
    before = [(10 * MB, 14 * MB), (30 * MB, 32 * MB)]
    assert new_ranges(before, [(6 * MB, 21 * MB)]) == [(6 * MB, 10 * MB), (14 * MB, 20 * MB)]
    assert new_ranges(before, [(10 * MB, 14 * MB)]) == []
    assert new_ranges([], [(MB, 3 * MB)]) == [], "no whole huge page lies in between"
    assert new_ranges([], [(MB, 7 * MB)]) == [(2 * MB, 6 * MB)]


def test_no_memory_no_request() -> None:
    assert use_huge_pages([]) == 0
    assert HUGE_PAGE_BYTES == 2 * MB
