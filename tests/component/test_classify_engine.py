"""The clip classifier as a cloud node serves it: over gRPC, charged its energy, as accurate as its table says."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

import torch

from cloud_node import app
from cloud_node.classify.engine import RankClassifierEngine
from cloud_node.classify.service import resample
from cloud_node.classify.weights import load
from cloud_node.dsp.group import GroupSettings
from cloud_node.settings import CloudNodeSettings
from skyshore.adapters.energy_modelled import ModelledMeter, linear_meter
from skyshore.adapters.video_decode import open_decoder
from skyshore.adapters.video_encode import Encoding, encode_segment
from skyshore.adapters.video_source import ClipFrame
from skyshore.adapters.worker_client import GrpcWorkerClient
from skyshore.domain.errors import DeadlineExceeded, InvalidTask
from skyshore.domain.node import Arm
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, Codec, EncodedFrame, SegmentInfo
from skyshore.nodemodel.arms import video_arms
from skyshore.nodemodel.clips import ACCURACY, CLIP_MODEL, clip_speeds
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.runtime.serve import GrpcService, grpc_server
from skyshore.v1 import worker_service_pb2_grpc
from skyshore.worker.engines import EngineSet
from skyshore.worker.executor import ServedClassifier, WorkerExecutor
from skyshore.worker.servicer import SERVICE, WorkerServicer
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_batch, action_clip


def clip_frames(pictures: np.ndarray) -> list[ClipFrame]:
    return [ClipFrame(i, i / 4, np.ascontiguousarray(picture[..., ::-1])) for i, picture in enumerate(pictures)]


async def sent(frames: list[EncodedFrame], gate: asyncio.Event | None = None) -> AsyncIterator[EncodedFrame]:
    for frame in frames:
        yield frame
    if gate:
        await gate.wait()


async def test_a_cloud_node_names_clips_over_grpc_and_charges_them() -> None:
    async with AsyncExitStack() as stack:
        engine = await RankClassifierEngine.start(GroupSettings(size=2, start_s=120.0))
        stack.push_async_callback(engine.close)
        arms = video_arms("sky", clip_speeds(VideoSpeed(CLIP_MODEL, "modelled:test", frame_s=0.002, slots=2)))
        meter = linear_meter(5.0, 30.0, 2, engine.ranks_cpu_s)
        executor = WorkerExecutor("sky", [ServedClassifier(arm, engine) for arm in arms], meter, 5.0)
        service = GrpcService(
            SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(executor)
        )
        server = await stack.enter_async_context(grpc_server([service], "127.0.0.1:0"))
        client = GrpcWorkerClient(server.address)
        stack.push_async_callback(client.close)

        def ask(arm: Arm, action: str, gate: asyncio.Event | None = None, **changes: object) -> AsyncIterator[object]:
            task = Task("t", **{"kind": TaskKind.VIDEO_CLASSIFY, "deadline_s": 100.0, **changes})
            pictures = action_clip(action, ActionSpec(), np.random.default_rng(11))
            encoded = list(encode_segment(clip_frames(pictures), Encoding(arm.codec, arm.encode_quality, 48), 4.0))
            info = SegmentInfo(0, 8, 48, 48, codec=arm.codec)
            return client.execute_segment(task, arm.arm_id, info, sent(encoded, gate))

        best = max(arms, key=lambda arm: arm.quality)
        right = 0
        for action in ACTIONS:
            found, outcome = [event async for event in ask(best, action)]
            assert isinstance(found, Classification)
            assert isinstance(outcome, WorkerOutcome)
            right += found.labels[0].label == action
            assert sum(entry.score for entry in found.labels) == pytest.approx(1.0)
            assert outcome.frames == 8
            assert outcome.energy_source == "modelled:linear"
            assert outcome.idle_joules > 0
        assert right >= len(ACTIONS) - 1
        with pytest.raises(DeadlineExceeded):
            _ = [event async for event in ask(best, "meet", asyncio.Event(), deadline_s=0.5)]
        with pytest.raises(InvalidTask, match=r"serves video\.classify, not video\.detect"):
            _ = [event async for event in ask(best, "meet", kind=TaskKind.VIDEO_DETECT)]
        assert executor.report().running == 0


async def test_the_ranks_cpu_seconds_are_charged_also_those_of_ranks_that_died() -> None:
    engine = await RankClassifierEngine.start(GroupSettings(size=1, start_s=120.0))
    try:
        began_s = engine.ranks_cpu_s()
        assert began_s > 0.01, "loading the model took some"
        pid = engine.group.pids[0]
        os.kill(pid, signal.SIGKILL)
        task, info = Task("t", TaskKind.VIDEO_CLASSIFY, deadline_s=150.0), SegmentInfo(0, 8, 48, 48)
        frames = list(encode_segment(clip_frames(np.zeros((8, 48, 48, 3), np.uint8)), Encoding(Codec.JPEG, 95), 4.0))
        assert len([event async for event in engine.classify(task, info, sent(frames))]) == 2
        assert engine.group.pids != [pid]
        assert engine.ranks_cpu_s() > began_s
    finally:
        await engine.close()


@pytest.mark.parametrize("encoding", list(ACCURACY), ids=lambda e: f"{e[0]}{e[1]}")
def test_every_encoding_is_as_accurate_and_as_large_as_its_arm_says(encoding: tuple[Codec, int]) -> None:
    model, _ = load()
    count = 100
    clips, labels = action_batch(count, ActionSpec(), np.random.default_rng(77))
    right = sent_bytes = 0
    for pictures, label in zip(clips, labels, strict=True):
        decoder, shown = open_decoder(encoding[0]), []
        for frame in encode_segment(clip_frames(pictures), Encoding(*encoding, 48), 4.0):
            sent_bytes += len(frame.data)
            shown += decoder.decode(frame.data)
        shown += decoder.flush()
        rgb = np.stack(shown)[..., ::-1].copy()
        with torch.inference_mode():
            right += int(model(torch.from_numpy(resample(rgb, model.config))[None]).argmax()) == label
    accuracy, frame_bytes = ACCURACY[encoding]
    three_errors = 3 * (accuracy * (1 - accuracy) / count) ** 0.5
    assert right / count == pytest.approx(accuracy, abs=three_errors)
    assert sent_bytes / count / 8 == pytest.approx(frame_bytes, rel=0.05)


async def test_without_torch_a_node_says_so_and_offers_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    asked: list[str] = []

    async def others(settings: CloudNodeSettings, _: AsyncExitStack) -> EngineSet:
        asked.append(settings.models)
        return EngineSet("onnx", (), ModelledMeter("none", 0.0, lambda: 0.0), 0.0)

    monkeypatch.setattr(app, "start_onnx", others)
    async with AsyncExitStack() as stack:
        engines = await app.start_local(CloudNodeSettings(models="nanodet,space-time-actions"), stack)
        assert (engines.name, engines.served, asked) == ("onnx", (), ["nanodet"])
        with pytest.raises(ProfileError, match=r"needs torch; install skyshore\[cloud\]"):
            await app.start_local(CloudNodeSettings(models="space-time-actions"), stack)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
async def test_a_node_told_of_the_model_offers_one_arm_per_encoding_measured_here(engine: str) -> None:
    settings = CloudNodeSettings(
        id="sky", models="space-time-actions", ranks=1, rank_engine=engine, energy="modelled", slowdown=2.0
    )
    async with AsyncExitStack() as stack:
        engines = await app.start_local(settings, stack)
        arms = [served.arm for served in engines.served]
        assert {arm.kind for arm in arms} == {TaskKind.VIDEO_CLASSIFY}
        assert {(arm.codec, arm.encode_quality) for arm in arms} == set(ACCURACY)
        assert engines.name == f"{engine} on 1 rank"
        assert all(0 < arm.frame_s < 60 for arm in arms)
        frames = list(encode_segment(clip_frames(np.zeros((8, 48, 48, 3), np.uint8)), Encoding(Codec.JPEG, 95), 4.0))
        task = Task("t", TaskKind.VIDEO_CLASSIFY, deadline_s=100.0)
        events = engines.served[0].engine.classify(task, SegmentInfo(0, 8, 48, 48), sent(frames))
        assert len([event async for event in events]) == 2
