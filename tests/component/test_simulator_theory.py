"""The queue of a video engine against queueing theory: mean waits within 1 % at a million requests."""

import math
from heapq import heappop, heappush

import numpy as np
import pytest

from skyshore.nodemodel.speed import VideoSpeed
from skyshore.nodemodel.video import Segment, VideoQueue

REQUESTS = 1_000_000


def mean_wait_s(slots: int, load: float, service: str, seed: int) -> float:
    """Simulate a queue with mean service time 1 and Poisson arrivals; returns the mean wait before service."""
    rng = np.random.default_rng(seed)
    # The arrivals' rate is made exact for the sample, so that its own chance does not blur the comparison.
    gaps = rng.exponential(1.0, REQUESTS)
    times = np.cumsum(gaps / gaps.mean() / (load * slots)).tolist()
    work = rng.exponential(1.0, REQUESTS) if service == "M" else np.ones(REQUESTS)
    seconds = (work / work.mean()).tolist()
    queue = VideoQueue(VideoSpeed("m", "modelled:theory", slots=slots, queue=REQUESTS))
    ends: list[tuple[float, int, Segment]] = []
    waited = 0.0

    def begin(now_s: float) -> None:
        nonlocal waited
        for segment in queue.begin(now_s):
            waited += now_s - segment.arrived_s
            heappush(ends, (now_s + segment.work_s, segment.number, segment))

    for at_s, work_s in zip(times, seconds, strict=True):
        while ends and ends[0][0] <= at_s:
            now_s, _, segment = heappop(ends)
            queue.leave(segment)
            begin(now_s)
        queue.offer(Segment("", work_s, at_s))
        begin(at_s)
    while ends:
        now_s, _, segment = heappop(ends)
        queue.leave(segment)
        begin(now_s)
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
