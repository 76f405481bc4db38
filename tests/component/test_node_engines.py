"""How a node makes its engines: real ones with measured speeds, slowed ones, profiles from a file."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from edge_node.settings import EdgeNodeSettings
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import add_own, ready
from skyshore.domain.errors import DeadlineExceeded, QueueFull
from skyshore.domain.llm import LlmInput, Sampling, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, EncodedFrame, SegmentInfo
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.engines.emulated.video import EmulatedVideoEngine
from skyshore.engines.llm.settings import KV_BUDGET_BYTES
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.worker import onnx_engines
from skyshore.worker.engines import start_emulated
from skyshore.worker.executor import ServedClassifier, ServedDetector, WorkerExecutor
from skyshore.worker.measure import measure_llm, measure_video
from skyshore.worker.onnx_engines import start_onnx
from skyshore.worker.settings import NodeSettings
from skyshore.worker.slowdown import SlowedLlmEngine
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf
from tests.fakes.virtual_time import run_in_virtual_time

SPEED = LlmSpeed("m", "modelled:test", iteration_s=0.01, prefill_token_s=2e-4, row_s=0.002, slots=2, queue=1)
ASK = LlmInput(prompt="spring tide", sampling=Sampling(max_tokens=12, ignore_eos=True))


async def outcome_of(engine, deadline_s: float = 20.0) -> WorkerOutcome:
    events = [event async for event in engine.generate(Task("t", TaskKind.LLM, deadline_s=deadline_s), ASK)]
    assert isinstance(events[-1], WorkerOutcome)
    return events[-1]


async def took_s(engine) -> tuple[WorkerOutcome, float]:
    start_s = asyncio.get_running_loop().time()
    return await outcome_of(engine), asyncio.get_running_loop().time() - start_s


def test_a_slowed_engine_takes_the_factor_in_every_part_and_in_throughput():
    async def run():
        engine = await EmulatedLlmEngine.start(SPEED)
        slowed = SlowedLlmEngine(engine, 3.0, slots=2)
        plain = await outcome_of(engine)
        outcome, alone_s = await took_s(slowed)
        assert outcome.prefill_s + outcome.compute_s == pytest.approx(3 * (plain.prefill_s + plain.compute_s))
        assert alone_s == pytest.approx(outcome.prefill_s + outcome.compute_s)
        three = await asyncio.gather(*(took_s(slowed) for _ in range(3)))
        assert max(took for _, took in three) > 1.6 * alone_s, "the third waits until a slot is free"
        assert max(outcome.queue_s for outcome, _ in three) > 0.6 * alone_s
        await slowed.close()

    run_in_virtual_time(run())


def test_a_slowed_engine_keeps_deadlines_and_its_limit():
    async def run():
        slowed = SlowedLlmEngine(await EmulatedLlmEngine.start(SPEED), 10.0, slots=1)
        with pytest.raises(DeadlineExceeded):
            await outcome_of(slowed, deadline_s=0.3)
        hogs = [asyncio.create_task(outcome_of(slowed)) for _ in range(3)]
        await asyncio.sleep(0)
        assert (slowed.load().queued, slowed.load().capacity) == (2, 3)
        with pytest.raises(QueueFull):
            await outcome_of(slowed)
        for hog in hogs:
            hog.cancel()
        await asyncio.wait(hogs)
        assert slowed.load().queued == 0
        assert (await outcome_of(slowed)).output_tokens == 12, "the slots are free again"
        await slowed.close()

    run_in_virtual_time(run())


def test_self_measurement_finds_the_speed_it_is_shown():
    async def run():
        engine = await EmulatedLlmEngine.start(SPEED)
        found = await measure_llm(engine, LlmSpeed("m", "", slots=2))
        await engine.close()
        assert found.source.startswith("measured:")
        assert found.decode_tokens_per_s == pytest.approx(SPEED.decode_tokens_per_s, rel=0.05)
        detector = EmulatedVideoEngine(VideoSpeed("v", "modelled:test", frame_s=0.02))
        speed = await measure_video(detector, VideoSpeed("v", ""), b"jpeg", 64, 48)
        assert speed.frame_s == pytest.approx(0.02, rel=0.05)

    run_in_virtual_time(run())


def test_scaled_time_runs_faster_and_costs_the_joules_of_model_time():
    async def run():
        speed = LlmSpeed("m", "modelled:test", iteration_s=0.1, busy_watts=50)
        engine = await EmulatedLlmEngine.start(speed, time_scale=20.0)
        outcome, real_s = await took_s(engine)
        assert real_s == pytest.approx(1.2 / 20), "1.2 s of model time"
        assert outcome.compute_s == pytest.approx(1.1 / 20)
        assert engine.busy_joules() == pytest.approx(1.2 * 50)
        await engine.close()

    run_in_virtual_time(run())


async def test_a_profile_file_makes_the_arms_and_a_bad_one_is_refused(tmp_path):
    path = tmp_path / "profile.json"
    speed = {"model": "talker:q8", "source": "measured:lab", "quality": 0.4, "iteration_s": 0.02, "slots": 3}
    path.write_text(json.dumps({"name": "lab", "source": "measured:lab", "idle_watts": 7, "llm": [speed]}))
    settings = EdgeNodeSettings(id="e", engine="emulated", profile=str(path), slowdown=2.0)
    async with AsyncExitStack() as stack:
        engines = await start_emulated(settings, stack)
    (arm,) = [served.arm for served in engines.served]
    assert (arm.arm_id, arm.model, arm.slots, arm.quality) == ("e/talker:q8", "talker", 3, 0.4)
    assert arm.decode_tokens_per_s == pytest.approx(25.0)
    assert engines.name == "emulated (lab, 2x slower)"
    assert engines.idle_watts == 7
    path.write_text('{"name": "lab"}')
    async with AsyncExitStack() as stack:
        with pytest.raises(ProfileError, match="source is missing; give a profile file, or one of instant"):
            await start_emulated(settings, stack)


async def test_an_emulated_node_offers_the_clip_classifier_and_names_clips_in_its_time():
    settings = EdgeNodeSettings(id="e", engine="emulated", models="nanodet,space-time-actions", profile="t4")
    async with AsyncExitStack() as stack:
        engines = await start_emulated(settings, stack)
        classifiers = [served for served in engines.served if isinstance(served, ServedClassifier)]
        assert {served.arm.model for served in classifiers} == {"space-time-actions"}
        assert all(isinstance(served, ServedDetector) for served in engines.served if served not in classifiers)
        executor = WorkerExecutor("e", engines.served, engines.meter, engines.idle_watts)
        arm = classifiers[0].arm

        async def frames():
            for index in range(8):
                yield EncodedFrame(index, index / 4, b"x")

        task = Task("t", TaskKind.VIDEO_CLASSIFY, deadline_s=10.0)
        found, outcome = [
            e async for e in executor.execute_segment(task, arm.arm_id, SegmentInfo(0, 8, 48, 48), frames())
        ]
    assert isinstance(found, Classification)
    assert outcome.compute_s == pytest.approx(8 * arm.frame_s)
    assert outcome.inference_joules > 0


async def test_a_real_node_says_what_it_has_room_for_and_a_profile_only_how_fast_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSHORE_MODELS", str(tmp_path / "models"))
    add_own(write_tiny_gguf(tmp_path / "mine.gguf", TinyLlama(hidden=128, ffn=192, context=4096)), "int8")
    speed = {"model": "mine:int8", "source": "measured:lab", "iteration_s": 0.02, "slots": 64, "kv_tokens": 9}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"name": "lab", "source": "measured:lab", "llm": [speed]}))
    logged = []
    monkeypatch.setattr(onnx_engines, "_log_speed", logged.append)
    settings = NodeSettings(engine="onnx", id="n", models="mine:int8", profile=str(path), slots=3)
    async with AsyncExitStack() as stack:
        (served,) = (await start_onnx(settings, stack)).served
        engine = served.engine
        assert engine.load().capacity > 3
    (shown,) = logged
    assert (shown.slots, shown.context_tokens, shown.source) == (3, 2048, "measured:lab")
    assert shown.kv_tokens == KV_BUDGET_BYTES // engine._steps._decoder.kv.bytes_per_token
    assert (served.arm.slots, served.arm.decode_tokens_per_s) == (3, pytest.approx(50.0))


@pytest.mark.timeout(180)
async def test_real_engines_offer_measured_arms_and_answer():
    for model in ("smollm2-135m", "ssd-mobilenet"):
        try:
            ready(model)
        except NotFetched as error:
            pytest.skip(str(error))
    settings = EdgeNodeSettings(id="e", models="smollm2-135m:int4,ssd-mobilenet", slots=2, energy="modelled")
    async with AsyncExitStack() as stack:
        engines = await start_onnx(settings, stack)
        arms = {served.arm.arm_id: served for served in engines.served}
        assert set(arms) == {"e/smollm2-135m:int4", "e/ssd-mobilenet@300/jpeg85", "e/ssd-mobilenet@300/jpeg50"}
        llm = arms["e/smollm2-135m:int4"]
        assert 0 < llm.arm.decode_tokens_per_s < 100_000
        assert 0 < arms["e/ssd-mobilenet@300/jpeg85"].arm.frame_s < 60
        assert (engines.name, engines.meter.source) == ("onnx", "modelled:linear")
        before = engines.meter.joules()
        events = [event async for event in llm.engine.generate(Task("t", TaskKind.LLM), ASK)]
        assert sum(event.token_count for event in events if isinstance(event, TokenChunk)) == 12
        assert engines.meter.joules() > before
