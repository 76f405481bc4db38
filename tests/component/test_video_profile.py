"""Profiling arms: settings change bytes and quality as they should, and a node offers the arms of its profile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cli.profile import video as profile_command
from skyshore.adapters.video_decode import open_decoder
from skyshore.adapters.video_encode import Encoding
from skyshore.adapters.video_source import ClipFrame
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import clip as catalogue_clip
from skyshore.catalogue.store import ready
from skyshore.domain.errors import InvalidTask
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Codec, Detection, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.nodemodel.document import profile_from_document, profile_to_document
from skyshore.nodemodel.speed import NodeProfile, VideoSpeed
from skyshore.worker import video_profile
from skyshore.worker.engines import start_emulated
from skyshore.worker.executor import ServedDetector
from skyshore.worker.settings import NodeSettings
from skyshore.worker.video_profile import (
    Judge,
    TrialClip,
    agreement_with,
    feasible_encodings,
    profile_model,
    synthetic_clip,
)
from skyshore.workload.annotations import Annotations

WIDTH, HEIGHT, SIDE, COUNT = 320, 240, 24, 16


class SpotEngine:
    """Finds the one bright square of a picture."""

    model = "spot"

    async def detect(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[FrameDetections | WorkerOutcome]:
        decoder = open_decoder(info.codec)
        async for frame in frames:
            (picture,) = decoder.decode(frame.data)
            scale = info.source_width / picture.shape[1]
            ys, xs = np.nonzero(picture[..., 1] > 180)
            box = Detection("spot", 0.9, xs.min() * scale, ys.min() * scale, xs.max() * scale, ys.max() * scale)
            yield FrameDetections(frame.frame_index, frame.timestamp_s, (box,))
        yield WorkerOutcome()

    def load(self) -> EngineLoad:
        return EngineLoad(0, 0, 1)

    async def close(self) -> None:
        pass


class CountingMeter:
    """One joule more at every reading."""

    source = "modelled:test"

    def __init__(self) -> None:
        self.read = 0

    def joules(self) -> float:
        self.read += 1
        return float(self.read)


def moving_clip() -> tuple[TrialClip, Annotations]:
    noise = np.random.default_rng(3).integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    frames, boxes = [], {}
    for index in range(COUNT):
        picture, left = noise.copy(), 10 + 9 * index
        cv2.rectangle(picture, (left, 100), (left + SIDE, 100 + SIDE), (255, 255, 255), -1)
        frames.append(ClipFrame(index, index / 10, picture))
        boxes[index] = (Detection("spot", 1.0, left, 100, left + SIDE, 100 + SIDE),)
    return TrialClip("moving", tuple(frames), 10.0), Annotations("exact", boxes, names={"spot": "spot"})


async def measured(encodings: list[Encoding]) -> list[VideoSpeed]:
    clip, truth = moving_clip()
    judge = Judge(truth, tuple(range(COUNT)), 0.3)
    steps: list[str] = []
    speeds = await profile_model(
        SpotEngine(), clip, encodings, judge, bare=VideoSpeed("spot", "", slots=2), meter=CountingMeter(),
        idle_watts=0.0, on_step=steps.append,
    )  # fmt: skip
    assert len(steps) == len(speeds) == len(encodings)
    return speeds


async def test_each_setting_costs_and_saves_what_it_should() -> None:
    fine, coarse, small, skipping, film = await measured(
        [
            Encoding(Codec.JPEG, 85),
            Encoding(Codec.JPEG, 20),
            Encoding(Codec.JPEG, 85, input_size=160),
            Encoding(Codec.JPEG, 85, frame_stride=4),
            Encoding(Codec.H264, 30),
        ]
    )
    assert fine.quality == pytest.approx(1.0)
    assert fine.bytes_per_frame > 2 * coarse.bytes_per_frame
    assert fine.bytes_per_frame > 2 * small.bytes_per_frame
    assert fine.bytes_per_frame > 5 * film.bytes_per_frame, "a film sends what changed, stills send all"
    # The square moves 9 of its 24 pixels a frame: boxes one frame old still overlap by 15/33 < 0.5, so only frames
    # that were looked at are right.
    assert skipping.quality == pytest.approx(0.25)
    assert skipping.bytes_per_frame == pytest.approx(fine.bytes_per_frame, rel=0.05), "per frame that was sent"


async def test_every_figure_says_where_it_comes_from() -> None:
    (speed,) = await measured([Encoding(Codec.JPEG, 85, 0, 2)])
    assert speed.source == "measured:moving, 8 frames"
    assert speed.quality_source == "F1 at IoU 0.5, exact"
    assert (speed.energy_source, speed.joules_per_frame) == ("modelled:test", pytest.approx(1 / COUNT))
    assert 0 < speed.frame_s <= speed.frame_p95_s
    assert (speed.slots, speed.frame_stride, speed.codec) == (2, 2, Codec.JPEG)


async def test_the_largest_model_agrees_with_itself() -> None:
    clip, _ = moving_clip()
    reference = await agreement_with(SpotEngine(), clip, 0.3)
    assert reference.source == "agreement with spot, no ground truth"
    judge = Judge(reference, tuple(range(COUNT)), 0.3)
    assert judge.quality(reference.boxes).f1 == 1.0
    alarm = {0: (*reference.boxes[0], Detection("ghost", 0.9, 0, 0, 9, 9))}
    assert judge.quality({**reference.boxes, **alarm}).f1 < 1.0, "a class the reference never saw is a mistake"


def test_a_setting_without_effect_or_encoder_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, _ = moving_clip()
    sizes = {e.input_size for e in feasible_encodings(clip, (0, 640, 320, 160), (85,), (), (1,))}
    assert sizes == {0, 160}, "nothing is ever enlarged"
    assert {e.frame_stride for e in feasible_encodings(clip, (0,), (85,), (), (1, 4, 16, 50))} == {1, 4}
    monkeypatch.setattr(video_profile, "h264_encoder", lambda: None)
    assert {e.codec for e in feasible_encodings(clip, (0,), (85,), (23, 33), (1,))} == {Codec.JPEG}
    with pytest.raises(InvalidTask, match="no encoding is possible"):
        feasible_encodings(clip, (0,), (), (23,), (1,))
    with pytest.raises(InvalidTask, match="strides must be"):
        feasible_encodings(clip, (0,), (85,), (), (0, 1))


def test_a_synthetic_clip_comes_with_boxes_on_its_objects() -> None:
    clip, truth = synthetic_clip(20, seed=1)
    again, _ = synthetic_clip(20, seed=1)
    assert len(clip.frames) == 20
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(clip.frames, again.frames, strict=True))
    width, height = clip.size
    boxes = [box for found in truth.boxes.values() for box in found]
    assert boxes
    assert all(0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height for box in boxes)


async def test_an_emulated_node_offers_the_measured_arms_each_at_its_own_pace(tmp_path: Path) -> None:
    speeds = (
        VideoSpeed("nanodet", "measured:t", 0.9, 0.02, queue=3),
        VideoSpeed("nanodet", "measured:t", 0.5, 0.002, input_size=160, queue=3),
    )
    file = tmp_path / "node.json"
    file.write_text(json.dumps(profile_to_document(NodeProfile("n", "measured:t", 5.0, (), speeds))))
    async with AsyncExitStack() as stack:
        node = await start_emulated(NodeSettings(engine="emulated", id="n", profile=str(file)), stack)
        detectors = [served for served in node.served if isinstance(served, ServedDetector)]
        assert [served.arm.arm_id for served in detectors] == ["n/nanodet@source/jpeg85", "n/nanodet@160/jpeg85"]
        (engine,) = {id(served.engine): served.engine for served in detectors}.values()
        assert engine.load().capacity == 4, "two arms of one model share its slots"
        slow, fast = [await _compute_s(engine, served.arm.arm_id) for served in detectors]
        assert (slow, fast) == (pytest.approx(0.2), pytest.approx(0.02))


async def _compute_s(engine: Any, arm_id: str) -> float:
    async def send() -> AsyncIterator[EncodedFrame]:
        for index in range(10):
            yield EncodedFrame(index, index / 10, b"x")

    info = SegmentInfo(0, 10, 64, 48, arm_id=arm_id)
    events = [event async for event in engine.detect(Task("t", TaskKind.VIDEO_DETECT), info, send())]
    assert isinstance(events[-1], WorkerOutcome)
    return events[-1].compute_s


def test_the_command_writes_a_profile_nodes_can_read(tmp_path: Path) -> None:
    try:
        path = catalogue_clip("vtest")
        ready("ssd-mobilenet")
    except NotFetched as missing:
        pytest.skip(missing.message)
    truth = tmp_path / "gt.txt"
    truth.write_text("1,1,10,20,30,40,1,-1,-1,-1\n")
    out = tmp_path / "node.json"
    words = ["video", path, "--truth", truth, "--models", "ssd-mobilenet", "--frames", "8", "--sizes", "256"]
    words += ["--jpeg", "50", "--crf", "", "--strides", "1,4", "--out", out, "--json"]
    command = [sys.executable, "-m", "cli", "profile", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    arms = json.loads(done.stdout)["arms"]
    assert [(arm["frame_stride"], arm["input_size"]) for arm in arms] == [(1, 256), (4, 256)]
    profile = profile_from_document(json.loads(out.read_text()))
    assert [speed.quality_source for speed in profile.video] == ["F1 at IoU 0.5, MOT ground truth"] * 2
    assert all(speed.frame_s > 0 and speed.bytes_per_frame > 1000 for speed in profile.video)


def test_arms_nobody_beats_are_marked() -> None:
    costs = [(0.9, 100.0, 1), (0.9, 80.0, 1), (0.5, 20.0, 1), (0.4, 20.0, 1), (0.45, 90.0, 8)]
    speeds = [VideoSpeed("m", "s", q, 0.01, bytes_per_frame=b, frame_stride=n) for q, b, n in costs]
    assert profile_command.frontier(speeds).tolist() == [False, True, True, False, True]
