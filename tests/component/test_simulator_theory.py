"""The simulator against queueing theory: mean waits within 1 % at a million requests."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from simulator.plant import LinkPath, NodePlan
from simulator.simulation import SimulationSettings
from skyshore.domain.node import Tier
from skyshore.domain.task import TaskKind
from skyshore.links.capacity import Constant
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection
from skyshore.nodemodel.speed import NodeProfile, VideoSpeed
from skyshore.workload.arrival import Arrival
from tests.fakes.simulated import simulation

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'; a million requests need it")

REQUESTS = 1_000_000
FRAME_S = 1e-4
"""The unit of work: a request is given so many frames that its service takes the time that was drawn."""


def arrivals(slots: int, load: float, service: str, seed: int) -> Iterator[Arrival]:
    """Poisson arrivals at a node of that many slots; the mean service takes 1 s."""
    rng = np.random.default_rng(seed)
    # The arrivals' rate is made exact for the sample, so that its own chance does not blur the comparison.
    gaps = rng.exponential(1.0, REQUESTS)
    times = np.cumsum(gaps / gaps.mean() / (load * slots)).tolist()
    work = rng.exponential(1.0, REQUESTS) if service == "M" else np.ones(REQUESTS)
    frames = np.maximum(np.rint(work / work.mean() / FRAME_S), 1).astype(int).tolist()
    for number, (at_s, count) in enumerate(zip(times, frames, strict=True)):
        yield Arrival(at_s, str(number), TaskKind.VIDEO_DETECT, frames=count, fps=1.0, deadline_s=1e9)


def mean_wait_s(slots: int, load: float, service: str, seed: int) -> float:
    """Mean wait before service in a queue on one node behind a link that takes no time."""
    speed = VideoSpeed("m", "modelled:theory", frame_s=FRAME_S, slots=slots, queue=REQUESTS)
    free = LinkDirection(Bucket(Constant(math.inf)), DelayLine(Direction(), 0.0, np.random.default_rng(0)))
    node = NodePlan("n", Tier.EDGE, NodeProfile("p", "modelled:theory", 0.0, (), (speed,)), LinkPath(free, free))
    run = simulation(node, settings=SimulationSettings(gateway_s=0.0), arrays=True)
    waited_s = 0.0
    for ended in run.run_batches(run.requests(arrivals(slots, load, service, seed))):
        waited_s += float(ended["queued_s"].sum())
    return waited_s / REQUESTS


def erlang_c(slots: int, offered: float) -> float:
    """Probability of waiting in M/M/c."""
    top = offered**slots / math.factorial(slots) / (1 - offered / slots)
    return top / (sum(offered**k / math.factorial(k) for k in range(slots)) + top)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("slots", "service", "load", "expected"),
    [
        (1, "M", 0.5, 0.5 / (1 - 0.5)),
        (1, "D", 0.5, 0.5 / (2 * (1 - 0.5))),
        (4, "M", 0.6, erlang_c(4, 2.4) / (4 - 2.4)),
    ],
    ids=["M/M/1", "M/D/1", "M/M/4"],
)
def test_mean_wait_is_within_one_percent_of_theory(slots, service, load, expected):
    assert mean_wait_s(slots, load, service, seed=1) == pytest.approx(expected, rel=0.01)
