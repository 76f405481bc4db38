"""The simulated fleet: hand-checked times, failures, books that balance, and runs that repeat to the bit."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cluster import Cluster, ClusterSettings
from simulator.dispatch import CoreDispatcher
from simulator.flight import ANSWER_CHARACTERS_PER_TOKEN, CHARACTERS_PER_TOKEN
from simulator.node import NodePlan, Path, SimNode
from simulator.timeline import Timeline
from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.links.framing import FRAME_BYTES, REPLY_BYTES, REQUEST_BYTES, TOKEN_BYTES
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, OneWay, capacity_of
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.workload.arrival import Arrival

LLM = LlmSpeed("m", "modelled:test", iteration_s=0.02, prefill_token_s=1e-4, row_s=0.001, slots=4, busy_watts=100)
VIDEO = VideoSpeed("v", "modelled:test", frame_s=0.01, bytes_per_frame=1e4, busy_watts=40, codec=Codec.H264)
PROFILE = NodeProfile("p", "modelled:test", 10.0, (LLM,), (VIDEO,))
LINK = Direction(rate_bytes_per_s=1e6, delay_s=0.01)


def path(direction: Direction = LINK, seed: int = 0) -> Path:
    ways = [
        OneWay(Bucket(capacity_of(direction, None)), DelayLine(direction, 0.02, np.random.default_rng([seed, i])))
        for i in (0, 1)
    ]
    return Path(*ways, joules_per_byte=1e-6)


def plan(name: str = "n", tier: Tier = Tier.EDGE, profile: NodeProfile = PROFILE, direction: Direction = LINK):
    return NodePlan(name, tier, profile, path(direction, len(name)))


class Run:
    def __init__(self, *plans: NodePlan, policy: str = "least_loaded", seed: int = 0) -> None:
        self.timeline, self.outcomes = Timeline(), []
        self.core = SchedulerCore(CoreSettings(policy=policy, seed=seed))
        self.dispatcher = CoreDispatcher(self.core)
        self.cluster = Cluster(self.timeline, plans, self.dispatcher, self.outcomes.append, ClusterSettings())

    def play(self, *arrivals: Arrival):
        self.cluster.start(arrivals)
        self.timeline.run()
        return self.outcomes


def chat(at: float = 0.0, name: str = "r", prompt: int = 100, output: int = 10, deadline: float = 60.0) -> Arrival:
    return Arrival(at, name, TaskKind.LLM, prompt_tokens=prompt, output_tokens=output, deadline_s=deadline)


def clip(at: float = 0.0, name: str = "v", frames: int = 20) -> Arrival:
    return Arrival(at, name, TaskKind.VIDEO_DETECT, frames=frames, fps=10.0, objects_per_frame=2.0)


def test_one_chat_takes_what_a_calculator_says():
    (outcome,) = Run(plan()).play(chat())
    up = (REQUEST_BYTES + 100 * CHARACTERS_PER_TOKEN) / 1e6 + 0.01
    prefill, decode = 0.02 + 100 * 1e-4, 9 * 0.021
    down = (REPLY_BYTES + 10 * (TOKEN_BYTES + ANSWER_CHARACTERS_PER_TOKEN)) / 1e6 + 0.01
    assert outcome.status is OutcomeStatus.OK
    assert outcome.latency_s == pytest.approx(0.003 + up + prefill + decode + down, abs=0.002)
    assert outcome.ttft_s == pytest.approx(0.003 + up + prefill + 0.01, abs=0.002)
    assert outcome.worker.prefill_s == pytest.approx(prefill)
    assert outcome.worker.compute_s == pytest.approx(decode)
    assert outcome.worker.inference_joules == pytest.approx((prefill + decode) * 100)
    assert outcome.worker.idle_joules == pytest.approx((prefill + decode) * 10)
    assert outcome.transmission_joules == pytest.approx((outcome.up_bytes + outcome.down_bytes) * 1e-6)


def test_work_on_frames_overlaps_their_upload():
    # 20 frames of 10 kB at 1 MB/s arrive over 0.2 s; each takes 10 ms: the node keeps pace with the link.
    (outcome,) = Run(plan()).play(clip())
    assert outcome.latency_s == pytest.approx(0.003 + 0.01 + 0.2 + 0.01 + 0.01 + 0.002, abs=0.01)
    slow = replace(PROFILE, video=(replace(VIDEO, frame_s=0.05),))
    (outcome,) = Run(plan(profile=slow)).play(clip())
    assert outcome.latency_s == pytest.approx(0.003 + 0.01 + 20 * 0.05 + 0.01 + 0.002, abs=0.01)


def test_of_a_clip_to_be_classified_a_sample_is_sent_and_worked_on_as_the_gateway_does():
    speed = replace(VIDEO, kind=TaskKind.VIDEO_CLASSIFY, frame_s=0.05, bytes_per_frame=1000.0)
    arrival = Arrival(0.0, "c", TaskKind.VIDEO_CLASSIFY, frames=200, fps=10.0)
    run = Run(plan(profile=replace(PROFILE, video=(speed,))))
    (outcome,) = run.play(arrival)
    assert outcome.up_bytes == REQUEST_BYTES + 8 * (FRAME_BYTES + 1000)
    assert outcome.worker.compute_s == pytest.approx(8 * 0.05)


def test_a_deadline_ends_the_task_and_frees_the_slot():
    one = replace(PROFILE, llm=(replace(LLM, slots=1),))
    first, second = sorted(
        Run(plan(profile=one)).play(chat(output=1000, deadline=1.0), chat(0.1, "s", output=5)),
        key=lambda outcome: outcome.task_id,
    )
    assert (first.status, first.latency_s) == (OutcomeStatus.DEADLINE_EXCEEDED, 1.0)
    assert second.status is OutcomeStatus.OK
    assert 1.0 - 0.114 <= second.worker.queue_s <= 1.0 - 0.113 + 0.021, "until the iteration under way has ended"


def names_on(node: SimNode) -> set[str]:
    return {flight.task.task_id for flight in node.flights}


def test_a_crash_moves_what_has_no_token_yet_and_fails_what_has():
    long, short = chat(0.0, "begun", output=400), chat(0.95, "fresh", prompt=4000, output=2)
    run = Run(plan("shore"), plan("sky", Tier.CLOUD))
    shore, sky = run.cluster.nodes["shore"], run.cluster.nodes["sky"]

    def crash_both_ways(_: None) -> None:
        held = {name: node for node in (shore, sky) for name in ("begun", "fresh") if name in names_on(node)}
        assert held["begun"] is not held["fresh"], "least loaded spreads two tasks over two nodes"
        for name, node in held.items():
            where[name] = node.node.node_id
        run.cluster.crash(held["fresh"])

    where: dict[str, str] = {}
    run.timeline.at(1.0, crash_both_ways, None)
    outcomes = {outcome.task_id: outcome for outcome in run.play(long, short)}
    assert outcomes["fresh"].status is OutcomeStatus.OK
    assert outcomes["fresh"].node_id == where["begun"], "it went to the node that is left"
    assert outcomes["begun"].status is OutcomeStatus.OK

    run = Run(plan("shore"), plan("sky", Tier.CLOUD))
    run.timeline.at(
        1.0, lambda _: run.cluster.crash(next(n for n in run.cluster.nodes.values() if "begun" in names_on(n))), None
    )
    (outcome,) = run.play(long)
    assert outcome.status is OutcomeStatus.FAILED, "its caller has seen tokens; nobody can take over"


def test_a_node_that_comes_back_is_used_again_and_a_lost_one_is_not():
    run = Run(plan())
    node = run.cluster.nodes["n"]
    run.timeline.at(1.0, lambda _: run.cluster.crash(node), None)
    run.timeline.at(10.0, lambda _: run.cluster.boot(node), None)
    outcomes = {o.task_id: o for o in run.play(chat(0.0, "a"), chat(5.0, "b"), chat(11.0, "c"))}
    assert outcomes["a"].status is OutcomeStatus.OK
    assert outcomes["b"].status is OutcomeStatus.FAILED
    assert outcomes["c"].status is OutcomeStatus.OK


def test_a_full_node_refuses_and_the_task_goes_elsewhere():
    tiny = replace(PROFILE, llm=(replace(LLM, slots=1, queue=0),), video=())
    arrivals = [chat(0.001 * i, f"r{i}", output=50) for i in range(6)]
    outcomes = Run(plan("a", profile=tiny), plan("bb", profile=tiny)).play(*arrivals)
    statuses = Counter(outcome.status for outcome in outcomes)
    assert statuses == {OutcomeStatus.OK: 2, OutcomeStatus.REJECTED: 4}


def test_a_slot_gathers_arrivals_and_places_them_at_its_end():
    at_once = Run(plan()).play(chat(0.11), chat(0.14, "s"))
    run = Run(plan(), policy="cs_ucb.slotted")
    gathered = run.play(chat(0.11), chat(0.14, "s"))
    waits = [late.latency_s - soon.latency_s for late, soon in zip(gathered, at_once, strict=True)]
    assert waits == pytest.approx([0.04, 0.01], abs=0.025), "until 0.15 s, and not quite apart from each other there"
    assert min(waits) > 0


def test_a_deadline_within_the_slot_gives_the_room_back():
    run = Run(plan(), policy="cs_ucb.slotted")
    (outcome,) = run.play(chat(0.11, deadline=0.02))
    assert (outcome.status, outcome.arm_id) == (OutcomeStatus.DEADLINE_EXCEEDED, "")
    run = Run(plan(), policy="cs_ucb.slotted")
    run.play(chat(0.11, deadline=0.02), chat(0.3, "s"))
    assert not run.core.fleet.in_flight


def test_a_run_ends_with_its_last_task_even_if_nobody_took_it():
    assert Run(plan()).play() == []
    run = Run(plan(profile=replace(PROFILE, video=())))
    (outcome,) = run.play(clip(at=2.0))
    assert (outcome.status, outcome.arm_id) == (OutcomeStatus.FAILED, "")
    assert run.timeline.now_s < 3.0


mixes = st.lists(
    st.tuples(st.floats(0, 20), st.booleans(), st.integers(1, 400), st.integers(1, 60), st.floats(0.2, 20)),
    min_size=1,
    max_size=40,
)


def arrivals_of(mix) -> list[Arrival]:
    made = []
    for i, (at, is_chat, prompt, output, deadline) in enumerate(sorted(mix)):
        arrival = chat(at, f"r{i}", prompt, output, deadline) if is_chat else clip(at, f"r{i}", frames=output)
        made.append(arrival)
    return made


@given(
    mixes,
    st.sampled_from(["least_loaded", "random", "cs_ucb", "edge_only", "cs_ucb.slotted", "cdio"]),
    st.lists(st.floats(0, 20), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_every_task_ends_once_and_joules_add_up_whatever_happens(mix, policy, crashes):
    run = Run(plan("a"), plan("sky", Tier.CLOUD), policy=policy)
    node = run.cluster.nodes["a"]
    for at in crashes:
        run.timeline.at(at, lambda _: run.cluster.crash(node) if node.alive else run.cluster.boot(node), None)
    arrivals = arrivals_of(mix)
    outcomes = run.play(*arrivals)
    assert Counter(o.task_id for o in outcomes) == Counter(a.request_id for a in arrivals)
    assert run.cluster.open_tasks == 0
    sky = run.cluster.nodes["sky"]
    charged = sum(o.worker.inference_joules + o.worker.idle_joules for o in outcomes if o.node_id == "sky")
    assert charged <= sky.joules() + 1e-6
    assert sky.joules() >= 10.0 * run.timeline.now_s - 1e-6


@given(mixes, st.sampled_from(["least_loaded", "random", "cs_ucb", "cs_ucb.slotted"]))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_run_to_the_bit(mix, policy):
    jittery = replace(LINK, jitter_s=0.005, loss=0.01)
    runs = [Run(plan("a", direction=jittery), plan("sky", Tier.CLOUD), policy=policy, seed=3) for _ in range(2)]
    outcomes = [run.play(*arrivals_of(mix)) for run in runs]
    assert outcomes[0] == outcomes[1]
    assert runs[0].dispatcher.digest == runs[1].dispatcher.digest
