"""The page's table of arms shows the frontier and says how far all arms lie apart."""

from dataclasses import asdict
from pathlib import Path

import pytest

from scripts import video_table
from skyshore.nodemodel.speed import VideoSpeed

ARMS = [
    (VideoSpeed("nanodet", "measured:v", 0.8, 0.04, bytes_per_frame=60_000, quality_source="truth"), True),
    (VideoSpeed("nanodet", "measured:v", 0.7, 0.04, bytes_per_frame=61_000, frame_stride=2), False),
    (VideoSpeed("nanodet", "measured:v", 0.3, 0.04, bytes_per_frame=12_000, frame_stride=4), True),
]
RESULT = {
    "clip": "v.avi",
    "fps": 10.0,
    "arms": [asdict(speed) | {"frontier": on_frontier} for speed, on_frontier in ARMS],
}


def test_the_frontier_is_shown_and_the_spread_is_over_all_arms() -> None:
    text = video_table.table(RESULT)
    rows = [line for line in text.splitlines() if line.startswith("| nanodet")]
    assert [row.split(" | ")[7] for row in rows] == ["600.0", "30.0"], "kB per second of video, most first"
    assert "2 of 3 arms on `v.avi`" in text
    assert "**20×** apart" in text
    assert "**0.30** to **0.80**" in text


def test_the_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "video.md"
    page.write_text(f"before\n{video_table.BEGIN}\nold\n{video_table.END}\nafter\n")
    monkeypatch.setattr(video_table, "PAGE", page)
    monkeypatch.setattr(video_table, "RESULT", tmp_path / "none.json")
    for _ in range(2):
        video_table.update()
        text = page.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert text.count("No result is kept yet") == 1
