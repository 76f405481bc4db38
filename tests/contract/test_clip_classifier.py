"""What every clip classifier promises: the emulated one, a slowed one, and the one sharded over real ranks."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from skyshore.adapters.video_encode import Encoding, encode_segment
from skyshore.adapters.video_source import ClipFrame
from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, QueueFull
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, Codec, EncodedFrame, SegmentInfo
from skyshore.engines.emulated.video import EmulatedVideoEngine
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.ports import ClipClassifierEngine
from skyshore.worker.slowdown import SlowedClipClassifier
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_clip

SPEED = VideoSpeed("space-time-actions", "modelled:test", frame_s=0.002, slots=1, queue=2, kind=TaskKind.VIDEO_CLASSIFY)
ROOM = 3
"""Clips each of the engines takes at a time."""


async def _ranks(stack: AsyncExitStack) -> ClipClassifierEngine:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed (extra [cloud])")
    from cloud_node.classify.engine import RankClassifierEngine
    from cloud_node.classify.service import ClassifierSettings
    from cloud_node.dsp.group import GroupSettings

    group = GroupSettings(size=1, start_s=120.0)
    engine = await RankClassifierEngine.start(group, ClassifierSettings(waiting=ROOM))
    stack.push_async_callback(engine.close)
    return engine


@pytest.fixture(params=["emulated", "slowed", "ranks"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[ClipClassifierEngine]:
    async with AsyncExitStack() as stack:
        if request.param == "ranks":
            yield await _ranks(stack)
        elif request.param == "slowed":
            yield SlowedClipClassifier(EmulatedVideoEngine(SPEED), 2.0, 1)
        else:
            yield EmulatedVideoEngine(SPEED)


def encoded(action: str = "meet", seed: int = 3, codec: Codec = Codec.H264) -> list[EncodedFrame]:
    pictures = action_clip(action, ActionSpec(), np.random.default_rng(seed))
    clip = [ClipFrame(i, i / 4, np.ascontiguousarray(picture[..., ::-1])) for i, picture in enumerate(pictures)]
    return list(encode_segment(clip, Encoding(codec, 20 if codec is Codec.H264 else 95), 4.0))


class ClipSender:
    """Gives frames out, after the gate if there is one, and may never end."""

    def __init__(self, frames: Sequence[EncodedFrame], gate: asyncio.Event | None = None) -> None:
        self.frames, self.gate = frames, gate

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        for frame in self.frames:
            yield frame
        if self.gate:
            await self.gate.wait()


def ask(engine: ClipClassifierEngine, sender: ClipSender, deadline_s: float = 30.0, codec: Codec = Codec.H264) -> Any:
    task = Task("t-1", TaskKind.VIDEO_CLASSIFY, deadline_s=deadline_s)
    info = SegmentInfo(0, len(sender.frames), 48, 48, codec=codec)
    return engine.classify(task, info, aiter(sender))


async def drained(events: Any) -> list[Any]:
    return [event async for event in events]


async def until(condition: Any) -> None:
    async with asyncio.timeout(30.0):
        while not condition():  # noqa: ASYNC110 - the load is a figure to read, not an event to await
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("codec", list(Codec))
async def test_one_classification_then_one_outcome(engine: ClipClassifierEngine, codec: Codec) -> None:
    found, outcome = await drained(ask(engine, ClipSender(encoded(codec=codec)), codec=codec))
    assert isinstance(found, Classification)
    scores = [entry.score for entry in found.labels]
    assert sorted(entry.label for entry in found.labels) == sorted(ACTIONS)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0)
    assert found.ranks >= 1
    assert found.batch >= 1
    assert isinstance(outcome, WorkerOutcome)
    assert outcome.frames == 8
    assert outcome.compute_s > 0
    assert outcome.queue_s >= 0
    assert engine.load().running == engine.load().queued == 0


async def test_what_is_no_clip_is_refused(engine: ClipClassifierEngine) -> None:
    for frames in ([], [EncodedFrame(0, 0.0, b"")]):
        with pytest.raises(InvalidMedia):
            await drained(ask(engine, ClipSender(frames)))
    assert engine.load().running == engine.load().queued == 0


async def test_a_sender_that_stalls_meets_the_deadline_and_frees_its_room(engine: ClipClassifierEngine) -> None:
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await drained(ask(engine, ClipSender(encoded(), asyncio.Event()), deadline_s=0.4))
    assert asyncio.get_running_loop().time() - began_s < 20.0
    assert engine.load().running == engine.load().queued == 0


async def test_a_full_engine_refuses_at_once_and_takes_work_again_later(engine: ClipClassifierEngine) -> None:
    gate = asyncio.Event()
    assert engine.load().capacity == ROOM
    busy = [asyncio.create_task(drained(ask(engine, ClipSender(encoded(), gate)))) for _ in range(ROOM)]
    await until(lambda: engine.load().running + engine.load().queued == ROOM)
    with pytest.raises(QueueFull) as refused:
        await drained(ask(engine, ClipSender(encoded())))
    assert refused.value.retry_after_s
    gate.set()
    assert [len(events) for events in await asyncio.gather(*busy)] == [2] * ROOM
    assert len(await drained(ask(engine, ClipSender(encoded())))) == 2


async def test_a_caller_that_goes_away_frees_its_room(engine: ClipClassifierEngine) -> None:
    hung = asyncio.create_task(drained(ask(engine, ClipSender(encoded(), asyncio.Event()))))
    await until(lambda: engine.load().running == 1)
    hung.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hung
    await until(lambda: engine.load().running + engine.load().queued == 0)
    assert len(await drained(ask(engine, ClipSender(encoded())))) == 2
