"""The table says of every entry what a reader of `skyshore models list` and the fetcher need."""

from __future__ import annotations

import re

import pytest

from skyshore.catalogue.coco import COCO_80, COCO_91
from skyshore.catalogue.entry import Client, Entry, Kind
from skyshore.catalogue.errors import UnknownEntry
from skyshore.catalogue.table import ENTRIES, entry


@pytest.mark.parametrize("item", ENTRIES.values(), ids=lambda e: e.name)
def test_every_file_is_pinned_and_kept_inside_the_entry(item: Entry) -> None:
    assert item.source.files
    for pin in item.source.files.values():
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)
        assert not pin.kept_as.startswith("/")
        assert ".." not in pin.kept_as
    assert item.source.version or item.source.client is Client.APT
    assert item.licence


def test_only_the_model_with_a_doubtful_licence_is_opt_in() -> None:
    assert [item.name for item in ENTRIES.values() if item.opt_in] == ["yolov5s"]
    assert "AGPL-3.0" in ENTRIES["yolov5s"].opt_in


def test_a_clip_comes_from_pip_alone_so_the_demo_needs_no_apt() -> None:
    assert any(item.kind is Kind.CLIP and item.source.client is Client.PIP for item in ENTRIES.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownEntry, match="nanodet"):
        entry("nanodot")


def test_labels_follow_coco_in_both_numberings() -> None:
    assert len(COCO_80) == len(set(COCO_80)) == 80
    # Category ids as COCO's annotation files have them.
    for category, name in [(1, "person"), (3, "car"), (13, "stop sign"), (44, "bottle"), (67, "dining table")]:
        assert COCO_91[category] == name
    assert (COCO_91[70], COCO_91[82], COCO_91[84], COCO_91[90]) == ("toilet", "refrigerator", "book", "toothbrush")
    assert [i for i, name in enumerate(COCO_91) if not name] == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
