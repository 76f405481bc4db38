"""A simulation in machine code equals the same one in plain Python, to the bit."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.plant import LinkPath, NodePlan
from simulator.simulation import Simulation, SimulationSettings
from skyshore.domain.node import Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.links.capacity import Trace
from skyshore.links.settings import Direction, Outage
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of, chunk_bytes
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.workload.arrival import Arrival
from tests.fakes.simulated import outcomes_of, simulation

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")

pytestmark = pytest.mark.timeout(900)  # the first run on a machine compiles, half a minute of work if nothing else runs

POLICIES = ("least_loaded", "cs_ucb", "cs_ucb.slotted", "linucb")
"""Of each kind one: a rule without and with a state, one that places by slots, one in Python. Each compiles once."""
TRACE = Trace(np.array([0.0, 1.0, 2.5, 3.0, 4.0]), np.array([2e4, 5e5, 0.0, 1e6]))

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
    loss=st.sampled_from([0.0, 0.0, 0.05]),
    outages=st.sampled_from([(), (Outage(0.5, 1.0),)]),
    trace=st.sampled_from(["", "", "t"]),
)
links = st.tuples(directions, directions, st.sampled_from(["free", "unmeasured", "own", "shared"]))
faults = st.tuples(
    st.sampled_from([0.0, 0.05, 0.4, 1.0, 4.5]),
    st.sampled_from(["crash", "boot", "drift", "recover"]),
    st.integers(0, 3),
)
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


def path(index: int, link: tuple[Direction, Direction, str], shared: list[Bucket], seed: int) -> LinkPath:
    up, down, word = link

    def way(side: int, direction: Direction) -> LinkDirection:
        bucket = Bucket(capacity_of(direction, TRACE if direction.trace else None))
        if word == "shared":
            shared.append(bucket)
            bucket = shared[0]
        return LinkDirection(bucket, DelayLine(direction, 0.02, np.random.default_rng([seed, index, side])))

    if word == "free":
        free = way(0, Direction())
        return LinkPath(free, free)
    pieces = [None if word == "unmeasured" else chunk_bytes(way, TRACE if way.trace else None) for way in (up, down)]
    return LinkPath(way(0, up), way(1, down), *pieces, joules_per_byte=1e-6)


def made(nodes, policy: str, seed: int, *, arrays: bool, on_decision=None) -> Simulation:
    shared: list[Bucket] = []
    plans = [
        NodePlan(
            f"n{index}",
            Tier.CLOUD if index % 2 else Tier.EDGE,
            profile,
            path(index, link, shared, seed),
            "box" if index < 2 else "",
        )
        for index, (profile, link) in enumerate(nodes)
    ]
    overheads: Iterator[tuple[float, float]] = cycle([(0.003, 0.0), (0.002, 0.001), (0.004, 0.0)])
    return simulation(
        *plans,
        policy=policy,
        seed=seed,
        on_decision=on_decision,
        settings=SimulationSettings(overheads=overheads),
        contention=0.3,
        arrays=arrays,
    )


def plan_faults(run: Simulation, drawn: list[tuple[float, str, int]]) -> None:
    names = list(run.numbers)
    for at_s, what, index in drawn:
        name = names[index % len(names)]
        calls = {
            "crash": lambda name=name: run.crash(name),
            "boot": lambda name=name: run.boot(name),
            "drift": lambda name=name: run.drift(name, 2.5),
            "recover": lambda name=name: run.drift(name, 1.0),
        }
        run.at(at_s, calls[what])


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


def assert_equal(nodes, policy: str, seed: int, arrivals: list[Arrival], broken=(), *, shown=False) -> list[Outcome]:
    found, shows = [], ([], [])
    for arrays in (False, True):
        show = shows[arrays].append if shown else None
        run = made(nodes, policy, seed, arrays=arrays, on_decision=show)
        plan_faults(run, broken)
        outcomes = outcomes_of(run, arrivals)
        found.append((outcomes, run.digest, run.joules(), run.now_s, run.events))
    assert found[0] == found[1]
    assert shows[0] == shows[1]
    return found[0][0]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(profiles, links), min_size=1, max_size=4),
    st.sampled_from(POLICIES),
    st.integers(0, 99),
    st.lists(requests, max_size=60),
    st.lists(faults, max_size=4),
)
def test_machine_code_and_plain_python_agree_to_the_bit(nodes, policy, seed, drawn, broken):
    assert_equal(nodes, policy, seed, arrivals_of(drawn), broken)


CROWDED = (
    NodeProfile(
        "p",
        "modelled:test",
        10.0,
        (LlmSpeed("m", "modelled:test", iteration_s=0.05, row_s=0.01, slots=2, queue=1, busy_watts=100),),
        (VideoSpeed("v", "modelled:test", frame_s=0.05, queue=1, bytes_per_frame=1e4, busy_watts=40),),
    ),
    (Direction(1e6), Direction(1e6), "own"),
)


@pytest.mark.parametrize("policy", POLICIES)
def test_crowded_nodes_reject_tasks_and_deadlines_end_them_alike(policy):
    arrivals = [
        Arrival(0.02 * i, f"r{i}", TaskKind.LLM, prompt_tokens=50, output_tokens=20, deadline_s=1.5)
        if i % 3
        else Arrival(0.02 * i, f"r{i}", TaskKind.VIDEO_DETECT, frames=10, fps=5.0, deadline_s=1.5)
        for i in range(300)
    ]
    ended = assert_equal([CROWDED] * 3, policy, 1, arrivals, [(2.0, "crash", 0), (4.0, "boot", 0)], shown=True)
    assert {end.status for end in ended} >= {
        OutcomeStatus.OK,
        OutcomeStatus.REJECTED,
        OutcomeStatus.DEADLINE_EXCEEDED,
    }


def test_there_is_room_for_any_number_of_tasks_notes_and_deviates():
    """More requests than one batch, more tasks at once than the first room, more draws than are made ahead."""
    profile, _ = CROWDED
    roomy = replace(profile, llm=(replace(profile.llm[0], queue=4000, slots=64, kv_tokens=10**8),))
    jittery = Direction(1e8, jitter_s=0.001, loss=0.01)
    arrivals = [
        Arrival(0.001 * i, f"r{i}", TaskKind.LLM, prompt_tokens=5, output_tokens=2, deadline_s=2.0)
        for i in range(10_000)
    ]
    assert_equal([(roomy, (jittery, jittery, "own"))] * 2, "least_loaded", 1, arrivals)
