"""Simulated fleets, loads and faults at random, for properties that must hold whatever happens."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import numpy as np
from hypothesis import strategies as st

from simulator.plant import LinkPath, NodePlan
from simulator.simulation import Simulation, SimulationSettings
from skyshore.domain.node import Tier
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind
from skyshore.links.capacity import Trace
from skyshore.links.settings import Direction, Outage
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of, chunk_bytes
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.workload.arrival import Arrival
from tests.fakes.simulated import simulation

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
fleets = st.lists(st.tuples(profiles, links), min_size=1, max_size=4)
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

    def make_direction(side: int, direction: Direction) -> LinkDirection:
        bucket = Bucket(capacity_of(direction, TRACE if direction.trace else None))
        if word == "shared":
            shared.append(bucket)
            bucket = shared[0]
        return LinkDirection(bucket, DelayLine(direction, 0.02, np.random.default_rng([seed, index, side])))

    if word == "free":
        free = make_direction(0, Direction())
        return LinkPath(free, free)
    pieces = [None if word == "unmeasured" else chunk_bytes(each, TRACE if each.trace else None) for each in (up, down)]
    return LinkPath(make_direction(0, up), make_direction(1, down), *pieces, joules_per_byte=1e-6)


Fleet = Sequence[tuple[NodeProfile, tuple[Direction, Direction, str]]]


def made(
    nodes: Fleet,
    policy: str,
    seed: int,
    *,
    arrays: bool = False,
    on_decision: Callable[[DecisionRecord], None] | None = None,
) -> Simulation:
    """A simulation of nodes with those profiles and links; the first two share a machine."""
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


def plan_faults(run: Simulation, drawn: Sequence[tuple[float, str, int]]) -> None:
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


def arrivals_of(drawn: Sequence[tuple]) -> list[Arrival]:
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
