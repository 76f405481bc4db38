"""The engine's promises: order, counts, back-pressure, refusal, deadline, cancellation. The model is a made-up one.

The network below reports a box wherever a picture is white, so a test paints where it expects to find something. It
is a real ONNX file run by a real session.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from skyshore.adapters.onnx_session import OnnxSession
from skyshore.adapters.video_encode import H264Encoder, encode_jpeg
from skyshore.catalogue.onnx_build import OnnxBuilder
from skyshore.domain.errors import DeadlineExceeded, Internal, InvalidMedia, NodeUnavailable, NotFound, QueueFull
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Codec, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.engines.video.detector import Detector
from skyshore.engines.video.engine import OnnxVideoEngine, VideoEngineSettings

SIDE, CELL = 64, 16
"""Input of the made-up network in pixels, and the spacing of the squares painted for it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of the centre-point family: score = brightness of a 4 × 4 block, box = 8 pixels to each side."""
    build = OnnxBuilder()
    pixels = build.add("Cast", ["frames"], to=TensorProto.FLOAT)
    blue = build.constant(np.array([[[[1 / 255]], [[0]], [[0]]]], np.float32))
    peaks = build.add("AveragePool", [build.add("Conv", [pixels, blue])], kernel_shape=[4, 4], strides=[4, 4])
    nothing, eight = build.constant(np.zeros((4, 1, 1, 1), np.float32)), build.constant(np.full(4, 8, np.float32))
    sizes = build.add("Conv", [peaks, nothing, eight])
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 3, SIDE, SIDE])
    cells = SIDE // 4
    model = build.model(
        "white", [frames], [("peaks", peaks, ["n", 1, cells, cells]), ("sizes", sizes, ["n", 4, cells, cells])]
    )
    target = tmp_path_factory.mktemp("models") / "white"
    target.mkdir()
    save(model, target / "model.onnx")
    about = {"family": "centernet", "height": SIDE, "width": SIDE, "dynamic_size": False, "corner_sampling": False}
    (target / "manifest.json").write_text(json.dumps({"about": {**about, "labels": ["spot"]}}))
    return target


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[OnnxVideoEngine]:
    made = OnnxVideoEngine(folder, VideoEngineSettings(slots=2, queue=3, line=4, max_batch=4))
    yield made
    await made.close()


def spot(number: int) -> tuple[int, int]:
    """Where the square of frame `number` stands, in the network's pixels."""
    across = SIDE // CELL
    return number % across * CELL + 8, number // across % across * CELL + 8


def picture(number: int, shade: int = 255, scale: int = 2) -> np.ndarray:
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    x, y = spot(number)
    canvas[y : y + 4, x : x + 4] = shade
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def jpegs(numbers: Sequence[int]) -> list[EncodedFrame]:
    return [EncodedFrame(n, n / 10, encode_jpeg(picture(n), 95)) for n in numbers]


def h264(numbers: Sequence[int]) -> list[EncodedFrame]:
    encoder = H264Encoder(2 * SIDE, 2 * SIDE, 10, 12)
    return [EncodedFrame(n, n / 10, encoder.encode(picture(n))) for n in numbers]


class Sender:
    """Gives frames out and remembers how many were taken."""

    def __init__(self, frames: Sequence[EncodedFrame], gate: asyncio.Event | None = None) -> None:
        self.frames, self.gate, self.taken = frames, gate, 0

    def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        return self._each()

    async def _each(self) -> AsyncIterator[EncodedFrame]:
        for frame in self.frames:
            if self.gate is not None:
                await self.gate.wait()
            self.taken += 1
            yield frame


def task(deadline_s: float = 150.0) -> Task:
    return Task("t", TaskKind.VIDEO_DETECT, deadline_s=deadline_s)


def info(count: int, **changes: Any) -> SegmentInfo:
    return SegmentInfo(
        **{"segment_index": 0, "frame_count": count, "source_width": 256, "source_height": 128, **changes}
    )


async def collect(
    engine: OnnxVideoEngine, frames: Sequence[EncodedFrame], **changes: Any
) -> tuple[list[FrameDetections], WorkerOutcome]:
    results = [r async for r in engine.detect(task(), info(len(frames), **changes), aiter(Sender(frames)))]
    outcome = results.pop()
    assert isinstance(outcome, WorkerOutcome)
    return [r for r in results if isinstance(r, FrameDetections)], outcome


def assert_own_spot(result: FrameDetections) -> None:
    """Each frame must carry the box painted into it and no other: 256 × 128 source pixels for 64 × 64 inside."""
    (found,) = result.detections
    x, y = spot(result.frame_index)
    assert found.label == "spot"
    assert (found.x1 + found.x2) / 2 == pytest.approx(x * 4, abs=0.5)
    assert (found.y1 + found.y2) / 2 == pytest.approx(y * 2, abs=0.5)
    assert found.x2 - found.x1 <= 64


@pytest.mark.parametrize(("codec", "encode"), [(Codec.JPEG, jpegs), (Codec.H264, h264)])
async def test_every_frame_comes_back_once_in_order_with_its_own_boxes_in_source_pixels(
    engine: OnnxVideoEngine, codec: Codec, encode: Any
) -> None:
    numbers = [3 * n for n in range(20)]  # a stride: indices are those of the clip
    results, outcome = await collect(engine, encode(numbers), codec=codec, min_score=0.5)
    assert [r.frame_index for r in results] == numbers
    assert [r.timestamp_s for r in results] == [n / 10 for n in numbers]
    for result in results:
        assert_own_spot(result)
    assert outcome.frames == 20
    assert outcome.prefill_s > 0
    assert outcome.compute_s > 0
    assert outcome.inference_joules == 0


async def test_segments_side_by_side_keep_their_frames_apart(folder: Path) -> None:
    engine = OnnxVideoEngine(folder, VideoEngineSettings(slots=8, queue=12, batch_wait_s=0.005, max_batch=8))
    segments = [jpegs([start + n for n in range(12)]) for start in range(20)]
    answers = await asyncio.gather(*(collect(engine, frames, min_score=0.5) for frames in segments))
    await engine.close()
    for start, (results, outcome) in enumerate(answers):
        assert [r.frame_index for r in results] == [start + n for n in range(12)]
        assert outcome.frames == 12
        for result in results:
            assert_own_spot(result)


def test_loading_a_model_leaves_the_numbers_of_its_caller_alone(folder: Path) -> None:
    OnnxSession(folder / "model.onnx")
    smallest = np.full(1, 5e-324)
    assert (smallest * 1.0)[0] > 0


async def test_the_sender_is_pulled_no_faster_than_results_are_taken(engine: OnnxVideoEngine) -> None:
    sender = Sender(jpegs(range(60)))
    stream = engine.detect(task(), info(60), aiter(sender))
    for taken in range(1, 4):
        await anext(stream)
        await until(lambda taken=taken: sender.taken > taken)
        # Another segment goes through meanwhile: without back-pressure, frames of the first would go with it.
        assert len((await collect(engine, jpegs(range(12))))[0]) == 12
        # The four places of the queue, and one frame that waits for a place.
        assert taken < sender.taken <= taken + 5
    await stream.aclose()


async def test_a_full_engine_refuses_at_once_and_takes_work_again_later(engine: OnnxVideoEngine) -> None:
    gate = asyncio.Event()
    frames = jpegs(range(3))
    busy = [asyncio.create_task(_drain(engine.detect(task(), info(3), aiter(Sender(frames, gate))))) for _ in range(5)]
    await until(lambda: engine.load().running + engine.load().queued == 5)
    load = engine.load()
    assert (load.running, load.queued, load.capacity) == (2, 3, 5)
    with pytest.raises(QueueFull) as refused:
        await anext(engine.detect(task(), info(3), aiter(Sender(frames))))
    assert refused.value.retry_after_s
    gate.set()
    assert await asyncio.gather(*busy) == [4] * 5
    assert engine.load().running == engine.load().queued == 0
    assert len((await collect(engine, frames))[0]) == 3


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the load is a figure to read, not an event to await
        await asyncio.sleep(0)


async def _drain(stream: AsyncIterator[Any]) -> int:
    return len([item async for item in stream])


async def test_a_deadline_ends_a_segment_whose_sender_stalls_and_frees_its_slot(engine: OnnxVideoEngine) -> None:
    frames = jpegs(range(3))

    async def stalling() -> AsyncIterator[EncodedFrame]:
        yield frames[0]
        await asyncio.Event().wait()

    stream = engine.detect(task(deadline_s=3.0), info(3), stalling())
    first = await anext(stream)
    assert isinstance(first, FrameDetections)
    with pytest.raises(DeadlineExceeded, match="1 of 3 frames"):
        await anext(stream)
    assert engine.load().running == 0


async def test_a_caller_that_takes_results_after_the_deadline_gets_an_error(
    engine: OnnxVideoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = engine.detect(task(), info(5), aiter(Sender(jpegs(range(5)))))
    await anext(stream)
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0)
    monkeypatch.setattr("skyshore.engines.video.engine.time", later)
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


async def test_a_deadline_also_counts_while_waiting_for_a_slot(engine: OnnxVideoEngine) -> None:
    gate = asyncio.Event()
    frames = jpegs(range(1))
    holders = [
        asyncio.create_task(_drain(engine.detect(task(), info(1), aiter(Sender(frames, gate))))) for _ in range(2)
    ]
    await until(lambda: engine.load().running == 2)
    with pytest.raises(DeadlineExceeded):
        await anext(engine.detect(task(deadline_s=0.05), info(1), aiter(Sender(frames))))
    assert engine.load().queued == 0
    gate.set()
    assert await asyncio.gather(*holders) == [2, 2]


@pytest.mark.parametrize("how", ["close the iterator", "cancel the task"])
async def test_a_caller_that_goes_away_frees_its_slot(engine: OnnxVideoEngine, how: str) -> None:
    sender = Sender(jpegs(range(40)))
    stream = engine.detect(task(), info(40), aiter(sender))
    await anext(stream)
    if how == "close the iterator":
        await stream.aclose()
    else:
        hung = asyncio.create_task(_drain(engine.detect(task(), info(3), aiter(Sender(jpegs([0]), asyncio.Event())))))
        await until(lambda: engine.load().running == 2)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        assert engine.load().running == 1
        await stream.aclose()
    assert engine.load().running == engine.load().queued == 0
    taken = sender.taken
    assert len((await collect(engine, jpegs(range(5))))[0]) == 5
    assert sender.taken == taken  # nobody pulls for a caller that left


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff\xe0 not a picture", jpegs([0])[0].data[:300], b"\x00" * 500], ids=range(4)
)
async def test_a_broken_jpeg_fails_its_segment_after_the_frames_before_it(engine: OnnxVideoEngine, data: bytes) -> None:
    frames = [*jpegs(range(3)), EncodedFrame(3, 0.3, data), *jpegs([4])]
    stream = engine.detect(task(), info(5), aiter(Sender(frames)))
    for index in range(3):
        result = await anext(stream)
        assert isinstance(result, FrameDetections)
        assert result.frame_index == index
    with pytest.raises(InvalidMedia):
        await anext(stream)
    assert len((await collect(engine, jpegs(range(2))))[0]) == 2


async def test_a_jpeg_that_claims_a_monstrous_size_is_refused_unopened(engine: OnnxVideoEngine) -> None:
    data = bytearray(jpegs([0])[0].data)
    header = data.index(b"\xff\xc0")
    data[header + 5 : header + 9] = (20000).to_bytes(2, "big") * 2
    with pytest.raises(InvalidMedia, match="20000×20000"):
        await anext(engine.detect(task(), info(1), aiter(Sender([EncodedFrame(0, 0.0, bytes(data))]))))


async def test_h264_garbage_and_a_lost_key_frame_are_invalid_media(engine: OnnxVideoEngine) -> None:
    for frames in ([EncodedFrame(0, 0.0, b"\x00\x00\x01garbage" * 20)], h264(range(6))[3:]):
        with pytest.raises(InvalidMedia):
            await collect(engine, frames, codec=Codec.H264)


async def test_an_error_of_the_sender_reaches_the_caller_unchanged(engine: OnnxVideoEngine) -> None:
    async def failing() -> AsyncIterator[EncodedFrame]:
        yield jpegs([0])[0]
        raise NodeUnavailable("the link broke")

    with pytest.raises(NodeUnavailable, match="the link broke"):
        await _drain(engine.detect(task(), info(2), failing()))


async def test_only_wanted_classes_and_scores_are_reported(engine: OnnxVideoEngine) -> None:
    assert all(r.detections for r in (await collect(engine, jpegs(range(3)), classes=("spot", "car")))[0])
    assert not any(r.detections for r in (await collect(engine, jpegs(range(3)), classes=("car",)))[0])
    grey = [EncodedFrame(0, 0.0, encode_jpeg(picture(0, shade=128), 95))]
    for threshold, found in ((0.4, True), (0.6, False)):
        ((result,), _) = await collect(engine, grey, min_score=threshold)
        assert bool(result.detections) is found


async def test_a_failing_session_fails_its_frames_and_not_the_engine(
    engine: OnnxVideoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = engine._batcher._session
    with monkeypatch.context() as patch:
        patch.setattr(session, "run", lambda _: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(Internal, match="out of memory"):
            await collect(engine, jpegs(range(3)))
    assert len((await collect(engine, jpegs(range(3))))[0]) == 3


async def test_a_closed_engine_turns_work_away(folder: Path) -> None:
    engine = OnnxVideoEngine(folder)
    await engine.close()
    with pytest.raises((NodeUnavailable, RuntimeError)):
        await collect(engine, jpegs([0]))


def variant(folder: Path, target: Path, **changes: Any) -> Detector:
    """The made-up detector with another description."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["about"].update(changes)
    target.mkdir()
    (target / "manifest.json").write_text(json.dumps(manifest))
    return Detector(target)


def test_a_network_trained_behind_the_old_resize_has_its_boxes_moved_by_half_a_pixel(
    folder: Path, tmp_path: Path
) -> None:
    peaks, sizes = np.zeros((1, 16, 16), np.float32), np.full((4, 16, 16), 8, np.float32)
    peaks[0, 8, 8] = 1.0
    outputs, size = {"peaks": peaks, "sizes": sizes}, (SIDE, SIDE)
    (plain,) = Detector(folder).detections(outputs, size, info(1))
    (moved,) = variant(folder, tmp_path / "old", corner_sampling=True).detections(outputs, size, info(1))
    # A pixel of the network is 4 × 2 of the source; corners and centres differ by (4 - 1) / 2 and (2 - 1) / 2 of those.
    assert (moved.x1 - plain.x1, moved.y1 - plain.y1) == (pytest.approx(1.5), pytest.approx(0.5))
    assert (moved.x2 - plain.x2, moved.y2 - plain.y2) == (pytest.approx(1.5), pytest.approx(0.5))


@pytest.mark.parametrize(
    ("source", "inside"),
    [((768, 576), (480, 640)), ((576, 1024), (640, 352)), ((640, 640), (640, 640)), ((9000, 9), (32, 640))],
)
def test_a_network_of_free_size_keeps_the_pictures_shape_in_steps_of_32(
    folder: Path, tmp_path: Path, source: tuple[int, int], inside: tuple[int, int]
) -> None:
    free = variant(folder, tmp_path / "free", dynamic_size=True, height=640, width=640)
    assert free.input_size(*source) == inside
    picture = np.zeros((source[1], source[0], 3), np.uint8)
    assert free.prepare(picture, inside).shape == (3, *inside)


def test_a_folder_without_a_detector_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="skyshore models fetch nothing"):
        Detector(tmp_path / "nothing")
