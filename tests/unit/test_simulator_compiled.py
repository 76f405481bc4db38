"""The compiled kernel against the plain simulator: equal outcomes, decisions, joules and times, to the bit."""

from pathlib import Path as FilePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.build import Simulation
from simulator.build import build as build_scenario
from simulator.cluster import Cluster, ClusterSettings
from simulator.compiled.scope import why_plain
from simulator.dispatch import CoreDispatcher
from simulator.node import NodePlan, Path
from simulator.timeline import Timeline
from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.links.meter import MeteredWay
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, OneWay, capacity_of, chunk_bytes
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.scenario import read_scenario
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.workload.arrival import Arrival

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")

pytestmark = pytest.mark.timeout(900)  # the first run on a machine compiles, half a minute of work if nothing else runs

POLICIES = (
    "least_loaded",
    "cs_ucb",
    "cs_ucb.filter_only",
    "cs_ucb.ucb_only",
    "cs_ucb.reject",
    "round_robin",
    "shortest_delay",
    "greedy_energy",
)

speeds = st.floats(1e-4, 0.1)
llms = st.builds(
    LlmSpeed,
    st.sampled_from(["m", "n:int8"]),
    st.just("modelled:test"),
    quality=st.sampled_from([0.5, 0.9]),
    iteration_s=speeds,
    prefill_token_s=st.floats(0.0, 1e-3),
    row_s=st.floats(0.0, 0.01),
    slots=st.integers(1, 4),
    kv_tokens=st.sampled_from([150, 400, 10_000]),
    context_tokens=st.sampled_from([120, 8192]),
    chunk_tokens=st.sampled_from([16, 64, 512]),
    queue=st.integers(0, 3),
    busy_watts=st.floats(0.0, 300.0),
)
videos = st.builds(
    VideoSpeed,
    st.just("v"),
    st.just("modelled:test"),
    quality=st.sampled_from([0.5, 0.9]),
    frame_s=speeds,
    segment_s=st.floats(0.0, 0.1),
    slots=st.integers(1, 3),
    queue=st.integers(0, 3),
    frame_stride=st.integers(1, 3),
    bytes_per_frame=st.sampled_from([0.0, 900.0, 2e4]),
    busy_watts=st.floats(0.0, 300.0),
)
profiles = st.builds(
    NodeProfile,
    st.just("p"),
    st.just("modelled:test"),
    st.floats(0.0, 50.0),
    st.tuples(llms) | st.just(()),
    st.tuples(videos),
)
directions = st.builds(
    Direction,
    rate_bytes_per_s=st.sampled_from([3e4, 1e6, float("inf")]),
    delay_s=st.sampled_from([0.0, 0.01]),
    jitter_s=st.sampled_from([0.0, 0.002]),
)
links = st.tuples(directions, directions, st.sampled_from(["free", "unmeasured", "own", "shared"]))
chats = st.builds(
    dict,
    kind=st.just(TaskKind.LLM),
    prompt_tokens=st.integers(1, 120),
    output_tokens=st.integers(1, 40),
)
clips = st.builds(
    dict,
    kind=st.just(TaskKind.VIDEO_DETECT),
    frames=st.integers(1, 20),
    fps=st.just(5.0),
    objects_per_frame=st.sampled_from([0.0, 2.5]),
)
requests = st.tuples(
    st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.7]),  # gaps; many come at the same time
    chats | clips,
    st.sampled_from([("a", 0.3), ("b", 2.0), ("b", 60.0)]),
    st.sampled_from([0.0, 0.6, 0.95]),
)


def simulation(nodes, policy: str, seed: int) -> tuple[Simulation, list]:
    timeline, outcomes = Timeline(), []
    shared: list[Bucket] = []

    def way(index: int, side: int, direction: Direction, word: str) -> OneWay:
        line = DelayLine(direction, 0.02, np.random.default_rng([seed, index, side]))
        bucket = Bucket(capacity_of(direction, None))
        if word == "shared":
            shared.append(bucket)
            bucket = shared[0]
        return OneWay(bucket, line) if word == "unmeasured" else MeteredWay(bucket, line, chunk_bytes(direction, None))

    def path(index: int, up: Direction, down: Direction, word: str) -> Path:
        if word == "free":
            free = way(index, 0, Direction(), "unmeasured")
            return Path(free, free)
        return Path(way(index, 0, up, word), way(index, 1, down, word), joules_per_byte=1e-6)

    plans = [
        NodePlan(f"n{index}", Tier.CLOUD if index % 2 else Tier.EDGE, profile, path(index, *link))
        for index, (profile, link) in enumerate(nodes)
    ]
    dispatcher = CoreDispatcher(SchedulerCore(CoreSettings(policy=policy, seed=seed)))
    cluster = Cluster(timeline, plans, dispatcher, outcomes.append, ClusterSettings())
    return Simulation(timeline, cluster, dispatcher), outcomes


def arrivals_of(drawn) -> list[Arrival]:
    at_s, found = 0.0, []
    for index, (gap_s, work, (name, deadline_s), min_quality) in enumerate(drawn):
        at_s += gap_s
        found.append(
            Arrival(
                at_s,
                f"r{index}",
                service_class=name,
                deadline_s=deadline_s,
                min_quality=min_quality,
                **work,
            )
        )
    return found


def assert_equal(nodes, policy: str, seed: int, arrivals: list[Arrival]) -> list:
    from simulator.compiled.engine import CompiledRun

    plain, outcomes = simulation(nodes, policy, seed)
    plain.cluster.start(arrivals)
    plain.timeline.run()
    other, _ = simulation(nodes, policy, seed)
    run = CompiledRun(other)
    ended = [end for batch in run.batches(run.requests(iter(arrivals))) for end in run.outcomes(batch, arrivals)]
    assert ended == outcomes
    assert run.digest == plain.dispatcher.digest
    assert run.now_s == plain.timeline.now_s
    assert run.joules() == {name: node.joules() for name, node in plain.cluster.nodes.items()}
    return ended


@settings(max_examples=60)
@given(
    st.lists(st.tuples(profiles, links), min_size=1, max_size=4),
    st.sampled_from(POLICIES),
    st.integers(0, 99),
    st.lists(requests, max_size=60),
)
def test_kernel_and_plain_simulator_agree_to_the_bit(nodes, policy, seed, drawn):
    assert_equal(nodes, policy, seed, arrivals_of(drawn))


def test_crowded_nodes_turn_tasks_away_and_deadlines_cut_them_off_alike():
    llm = LlmSpeed("m", "modelled:test", iteration_s=0.05, row_s=0.01, slots=2, queue=1, busy_watts=100)
    video = VideoSpeed("v", "modelled:test", frame_s=0.05, queue=1, bytes_per_frame=1e4, busy_watts=40)
    nodes = [(NodeProfile("p", "modelled:test", 10.0, (llm,), (video,)), (Direction(1e6), Direction(1e6), "own"))] * 3
    arrivals = [
        Arrival(0.02 * i, f"r{i}", TaskKind.LLM, prompt_tokens=50, output_tokens=20, deadline_s=1.5)
        if i % 3
        else Arrival(0.02 * i, f"r{i}", TaskKind.VIDEO_DETECT, frames=10, fps=5.0, deadline_s=1.5)
        for i in range(300)
    ]
    ended = assert_equal(nodes, "least_loaded", 1, arrivals)
    assert {end.status for end in ended} >= {
        OutcomeStatus.OK,
        OutcomeStatus.REJECTED,
        OutcomeStatus.DEADLINE_EXCEEDED,
    }


SCENARIO = """
name = "t"
policy = "{policy}"
duration_s = 10
[[nodes]]
id = "n"
tier = "edge"
profile = "a100"
models = ["llama3-8b"]
[[links]]
nodes = "n"
up = {{ rate_mbit_s = 100{more} }}
[[workload.llm]]
rate_per_s = 1
{faults}
"""


MANY_CLASSES = "".join(f'[[classes]]\nname = "c{number}"\ndeadline_s = 1\n' for number in range(64))


@pytest.mark.parametrize(
    ("policy", "more", "faults", "reason"),
    [
        ("least_loaded", "", "", ""),
        ("skyshore", "", "", "no compiled form"),
        ("cs_ucb.slotted", "", "", "no compiled form"),
        ("least_loaded", ", loss = 0.01", "", "loses packets"),
        ("least_loaded", ", outages_s = [[1, 2]]", "", "outages"),
        ("least_loaded", "", '[[faults]]\nnode = "n"\nkind = "crash"\nat_s = 1', "faults"),
        ("cs_ucb", "", MANY_CLASSES, "service classes"),
    ],
)
def test_what_the_kernel_does_not_do_is_said(policy, more, faults, reason):
    scenario = read_scenario(SCENARIO.format(policy=policy, more=more, faults=faults))
    found = why_plain(scenario, build_scenario(scenario, FilePath(), lambda _: None))
    assert reason in found and bool(reason) == bool(found)
