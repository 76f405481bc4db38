"""Live sources give frames in order and drop the oldest when late; `skyshore detect` sends clips and cameras."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cli import detect
from cli.connection import GatewayApi
from cli.detect import DetectOptions, detect_clip, detect_live
from skyshore.adapters.video_decode import Picture
from skyshore.adapters.video_live import LiveFrames, PictureSource, open_camera
from skyshore.domain.errors import InvalidMedia, InvalidTask, NotFound, SkyshoreError
from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, serving_http, world

OPTIONS = DetectOptions("", "standard", "", 0.3)


def shade(number: int) -> Picture:
    return np.full((48, 64, 3), number * 10, np.uint8)


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        cv2.imwrite(str(path / f"{number:03}.png"), shade(number))
    return path


def printed_frames(out: str) -> list[dict[str, Any]]:
    """Without the services' log lines, which share stdout in a test."""
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


class EagerCamera:
    """Gives `count` pictures at once, and tells when they are all out."""

    fps, own_pace = 10.0, True

    def __init__(self, count: int) -> None:
        self.count, self.given, self.closed, self.out = count, 0, False, threading.Event()

    def next(self) -> Picture | None:
        if self.given == self.count:
            self.out.set()
            return None
        self.given += 1
        return shade(self.given - 1)

    def close(self) -> None:
        self.closed = True


def test_a_folder_comes_in_the_order_of_its_names_at_the_pace_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 12)
    (folder / "notes.txt").write_text("no picture")
    with LiveFrames(open_camera(str(folder), 200.0), room=12) as live:
        seen = [(frame.index, int(frame.picture[0, 0, 0]), frame.timestamp_s) for frame in live]
    assert seen == [(n, n * 10, pytest.approx(n / 200)) for n in range(12)]
    assert live.dropped == 0


def test_a_late_reader_gets_the_newest_frames_and_the_others_are_counted() -> None:
    camera = EagerCamera(20)
    with LiveFrames(camera, room=3) as live:
        assert camera.out.wait(60)
        assert [frame.index for frame in live] == [17, 18, 19]
        assert live.dropped == 17
    assert camera.closed


def test_leaving_early_ends_the_thread_and_frees_the_camera() -> None:
    camera = EagerCamera(1_000_000)
    before = threading.active_count()
    with LiveFrames(camera, room=2) as live:
        next(iter(live))
    assert camera.closed
    assert threading.active_count() == before


def test_a_clip_played_as_a_camera_gives_every_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=15)
    with LiveFrames(open_camera(str(clip), 300.0), room=15) as live:
        assert [frame.index for frame in live] == list(range(15))


def test_a_broken_picture_is_told_after_the_frames_before_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 3)
    (folder / "002.png").write_bytes(b"no picture")
    seen = []
    with LiveFrames(open_camera(str(folder), 500.0), room=5) as live, pytest.raises(InvalidMedia, match=r"002\.png"):
        seen += [frame.index for frame in live]
    assert live.dropped == 0


@pytest.mark.parametrize("source", ["nowhere", "rtsp://127.0.0.1:1/none", "empty"])
def test_what_gives_no_pictures_is_refused(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound):
        open_camera(str(tmp_path / "empty") if source == "empty" else source)


async def test_a_clip_through_the_system_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    async with world(tmp_path / "s", FakeNode("n"), gateway_segment_s=0.5) as w, serving_http(w.deps) as port:
        api = GatewayApi(f"http://127.0.0.1:{port}")
        await asyncio.to_thread(detect_clip, api, clip, OPTIONS, tmp_path / "out", as_mot=False)
        frames = printed_frames(capsys.readouterr().out)
        assert [frame["frame_index"] for frame in frames] == list(range(20))
        assert frames[0]["detections"][0]["label"] == "person"
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"annotated.mp4", "contact-sheet.png"}
        await asyncio.to_thread(detect_clip, api, clip, OPTIONS, None, as_mot=True)
        assert "1,-1,1.00,2.00,29.00,38.00,0.9000,-1,-1,-1\n2,-1,1.00," in capsys.readouterr().out
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(b"no video")
        with pytest.raises(SkyshoreError, match="no video file") as refused:
            await asyncio.to_thread(detect_clip, api, bad, OPTIONS, None, as_mot=False)
        assert refused.value.code == "invalid_media"
        with pytest.raises(SkyshoreError) as refused:
            await asyncio.to_thread(detect_clip, api, clip, DetectOptions("", "royal", "", 0.3), None, as_mot=False)
        assert refused.value.code == InvalidTask.code


async def test_a_camera_through_the_system_keeps_its_own_frame_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "pictures", 20)
    async with world(tmp_path / "s", FakeNode("n")) as w, serving_http(w.deps) as port:
        api = GatewayApi(f"http://127.0.0.1:{port}")

        def watch() -> None:
            detect_live(api, str(folder), OPTIONS, fps=20.0, piece_s=0.25, in_flight=8, as_mot=False)

        await asyncio.to_thread(watch)
    printed = capsys.readouterr()
    frames = printed_frames(printed.out)
    assert [frame["frame_index"] for frame in frames] == list(range(20))
    assert [frame["timestamp_s"] for frame in frames] == [pytest.approx(n / 20, abs=1e-4) for n in range(20)]
    assert "20 frames sent; dropped: 0 (system busy)" in printed.err


async def test_a_camera_before_a_busy_system_drops_pieces_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "pictures", 20)
    node = FakeNode("n", hold=asyncio.Event())
    over = threading.Event()

    def open_watched(source: str, fps: float) -> PictureSource:
        camera = open_camera(source, fps)
        read = camera.next

        def read_and_notify() -> Picture | None:
            picture = read()
            if picture is None:
                over.set()
            return picture

        monkeypatch.setattr(camera, "next", read_and_notify)
        return camera

    monkeypatch.setattr(detect, "open_camera", open_watched)
    async with world(tmp_path / "s", node) as w, serving_http(w.deps) as port:
        api = GatewayApi(f"http://127.0.0.1:{port}")

        def watch() -> None:
            detect_live(api, str(folder), OPTIONS, fps=20.0, piece_s=0.25, in_flight=1, as_mot=False)

        watching = asyncio.create_task(asyncio.to_thread(watch))
        assert await asyncio.to_thread(over.wait, 100)
        await w.eventually(lambda: node.running == 1)
        assert node.hold is not None
        node.hold.set()
        await watching
    printed = capsys.readouterr()
    assert [frame["frame_index"] for frame in printed_frames(printed.out)] == [0, 1, 2, 3, 4]
    assert "5 frames sent; dropped: 15 (system busy)" in printed.err
