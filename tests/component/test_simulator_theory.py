"""The engine against queueing theory: mean waits within 1 % at a million requests."""

import math

import numpy as np
import pytest

from simulator.servers import VideoServer
from simulator.timeline import Timeline
from skyshore.nodemodel.speed import VideoSpeed
from skyshore.nodemodel.video import Segment

REQUESTS = 1_000_000


def mean_wait_s(slots: int, load: float, service: str, seed: int) -> float:
    """Simulate a queue with mean service time 1 and Poisson arrivals; returns the mean wait before service."""
    rng = np.random.default_rng(seed)
    # The arrivals' rate is made exact for the sample, so that its own chance does not blur the comparison.
    gaps = rng.exponential(1.0, REQUESTS)
    times = np.cumsum(gaps / gaps.mean() / (load * slots)).tolist()
    work = rng.exponential(1.0, REQUESTS) if service == "M" else np.ones(REQUESTS)
    seconds = (work / work.mean()).tolist()
    timeline = Timeline()
    waited = 0.0

    def done(segment: Segment) -> None:
        nonlocal waited
        waited += segment.started_s - segment.arrived_s

    server = VideoServer(VideoSpeed("m", "modelled:theory", slots=slots, queue=REQUESTS), timeline, done)

    def arrive(index: int) -> None:
        server.offer(Segment("", seconds[index], times[index]))
        if index + 1 < REQUESTS:
            timeline.at(times[index + 1], arrive, index + 1)

    timeline.at(times[0], arrive, 0)
    timeline.run()
    return waited / REQUESTS


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
