"""Open loop: every request leaves at its intended time, however many are still unanswered."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from loadgen.observation import Observation
from skyshore.domain.outcome import OutcomeStatus
from skyshore.report.request_record import RequestRecord
from skyshore.workload.arrival import Arrival

START_DELAY_S = 0.2
"""Time between the call and time 0 of the schedule, so that the first request is not late."""


class RequestSender(Protocol):
    """Plays one request against a server."""

    async def send(self, observation: Observation, clock: RunClock) -> None:
        """Fill in the observation; failures of the server or the network are noted in it, never raised."""
        ...

    def close(self) -> None:
        """Called once, when the last request has ended."""
        ...


class RunClock:
    """Seconds since time 0 of the schedule, on the event loop's monotonic clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, zero_s: float) -> None:
        self._loop, self._zero_s = loop, zero_s

    def now_s(self) -> float:
        """Negative before the schedule begins."""
        return self._loop.time() - self._zero_s


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts so far."""

    now_s: float
    sent: int
    in_flight: int
    succeeded: int
    failed: int


class LoadRun:
    """Plays a sequence of arrivals once."""

    def __init__(self, arrivals: Sequence[Arrival], sender: RequestSender) -> None:
        self._arrivals, self._sender = arrivals, sender
        self._observations: list[Observation] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock: RunClock | None = None
        self._stopped_at_s: float | None = None
        self._cpu_share = 0.0

    async def play(self, start_delay_s: float = START_DELAY_S) -> None:
        """Send everything and wait for every answer; returns early, with partial results, after `stop`.

        Time 0 of the schedule comes `start_delay_s` from now.
        """
        loop = asyncio.get_running_loop()
        clock = self._clock = RunClock(loop, loop.time() + start_delay_s)
        cpu_s, wall_s = time.process_time(), loop.time()
        try:
            async with asyncio.TaskGroup() as group:
                self._own(group.create_task(self._pace(group, clock), name="pacer"))
        finally:
            self._sender.close()
        self._cpu_share = (time.process_time() - cpu_s) / max(1e-9, loop.time() - wall_s)

    def stop(self) -> None:
        """Send no more requests and cancel those in flight; safe to call twice."""
        if self._clock is not None and self._stopped_at_s is None:
            self._stopped_at_s = max(0.0, self._clock.now_s())
            for task in self._tasks:
                task.cancel()

    @property
    def stopped_at_s(self) -> float | None:
        """Schedule time at which `stop` came; None for a run that was played to its end."""
        return self._stopped_at_s

    @property
    def client_cpu_share(self) -> float:
        """Cores this process used, pacing, parsing and all; known after `play`."""
        return self._cpu_share

    def records(self) -> list[RequestRecord]:
        """Every request that was due so far, in order of intended time."""
        return [observation.record() for observation in self._observations]

    def progress(self) -> Progress:
        """Counts for a progress bar."""
        ended = [each.status for each in self._observations if math.isfinite(each.end_s)]
        succeeded = ended.count(OutcomeStatus.OK)
        count, now_s = len(self._observations), self._clock.now_s() if self._clock else -START_DELAY_S
        return Progress(now_s, count, count - len(ended), succeeded, len(ended) - succeeded)

    async def _pace(self, group: asyncio.TaskGroup, clock: RunClock) -> None:
        for arrival in self._arrivals:
            # Even when late, yield: answers must be read while requests are sent.
            await asyncio.sleep(max(0.0, arrival.t_intended_s - clock.now_s()))
            observation = Observation(arrival)
            self._observations.append(observation)
            self._own(group.create_task(self._sender.send(observation, clock), name=arrival.request_id))

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
